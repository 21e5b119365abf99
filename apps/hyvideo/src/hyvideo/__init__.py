"""Everything: HunyuanVideo you can train, from footage to a video."""
