"""Text encoders for HunyuanVideo models."""
