"""Decoding of rows whose prompts are in a key/value cache: one model call per token, for rollouts and evaluation."""
