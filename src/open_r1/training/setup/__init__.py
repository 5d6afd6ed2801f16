"""Everything before the first step: questions, model, trackers."""
