"""Describe clips with structured captions, by any captioner, many at a time."""
