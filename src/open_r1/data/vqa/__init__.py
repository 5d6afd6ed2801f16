"""Medical VQA sets beside OmniMedVQA: published files read into one schema, prepared, counted and compared."""
