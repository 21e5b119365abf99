"""Encode the captions of shards once, into a store that is looked in before anything is encoded."""
