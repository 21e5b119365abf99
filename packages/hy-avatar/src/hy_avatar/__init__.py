"""Avatar conditions: reference, audio, pose and expression."""
