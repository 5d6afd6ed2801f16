"""Checkpoints, resuming, signals, and guards against errors and hangs."""
