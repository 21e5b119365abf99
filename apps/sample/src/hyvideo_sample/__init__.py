"""Turn a prompt into a video."""
