"""A whole study from one command: training runs, evaluation cells, one report, and nothing done twice or lost."""
