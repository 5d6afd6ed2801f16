"""A language model as a second opinion on open answers. Optional: no grade depends on it."""
