"""Several runs: which belong together, and how they differ."""
