"""Turn footage into training sets."""
