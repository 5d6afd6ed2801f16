"""Answers without letters: read from a completion, compared with the right one, measured by words."""
