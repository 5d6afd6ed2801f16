"""Planning: which runs and cells a study consists of, decided before anything starts."""
