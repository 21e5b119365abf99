"""What a command shows while it reads or writes gigabytes."""

import sys


def tell(done: int, total: int) -> None:
    """Show on the terminal how much is done, in bytes; nothing is shown where there is none."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{done / 1e9:.2f} of {total / 1e9:.2f} GB", end=end, file=sys.stderr, flush=True)
