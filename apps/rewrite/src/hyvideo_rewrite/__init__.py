"""Rewrite prompts into what a video model was trained to read, and collect pairs to fine-tune on."""
