"""Settings for every test of the workspace; a package tested alone, from its wheel, runs without this file."""

import os

# Tests are tiny: more threads only make them wait for each other. Set before torch is imported, which reads it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
