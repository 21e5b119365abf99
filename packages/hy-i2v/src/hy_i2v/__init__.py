"""Image-to-video conditions."""
