"""GRPO and supervised fine-tuning: from flags to a finished checkpoint."""
