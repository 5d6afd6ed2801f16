"""One or several trainings as a page: curves, alarms, and the groups of completions that they learned from."""
