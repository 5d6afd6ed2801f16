"""Flags of the training commands: ours, TRL's, the published ones, and what they mean together."""
