"""Checkpoints: found, downloaded, checked, loaded, described and published."""
