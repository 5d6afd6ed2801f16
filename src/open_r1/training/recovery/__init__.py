"""Runs that survive: checkpoints, resuming, signals, guards."""
