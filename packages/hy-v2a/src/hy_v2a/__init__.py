"""Video-to-audio generation."""
