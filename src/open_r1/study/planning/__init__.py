"""What a study will run, decided before anything starts."""
