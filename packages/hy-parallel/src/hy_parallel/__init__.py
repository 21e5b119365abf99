"""Parallelism for training and sampling video models."""
