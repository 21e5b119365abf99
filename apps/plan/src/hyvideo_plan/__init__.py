"""Tell what a run needs, in memory, arithmetic and time, before anything is allocated."""
