"""Execution: the commands of a study, the workers that run them, and the files that they write."""
