"""Checks of a checkpoint, before it is loaded and after it was saved."""
