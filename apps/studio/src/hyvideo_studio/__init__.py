"""A local web page for sampling and training."""
