"""GRPO on whole groups: rollout, scoring and the trainer."""
