"""A checkpoint answers the questions of a set."""
