"""Train hyvideo models from Lightning CLI configs."""
