"""A study's runs: commands, workers and what they leave behind."""
