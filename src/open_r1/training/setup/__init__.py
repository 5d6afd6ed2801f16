"""Flags, questions and settings of a training, before the first step."""
