"""Encode the captions of shards once, into a store that training and sampling read."""
