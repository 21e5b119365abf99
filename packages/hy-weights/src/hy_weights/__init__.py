"""Read, write and verify model checkpoints: strict receipts, manifests, atomic publishing."""
