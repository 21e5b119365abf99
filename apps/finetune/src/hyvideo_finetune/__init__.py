"""Fine-tune hyvideo models."""
