"""Answers become results, results become accuracies with intervals."""
