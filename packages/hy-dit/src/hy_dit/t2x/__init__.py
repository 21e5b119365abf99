"""DiT-T2X: the family of plainer transformers that the scaling laws were fitted on (section 4.4)."""
