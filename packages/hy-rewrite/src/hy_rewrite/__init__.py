"""Prompt rewriting for video models."""
