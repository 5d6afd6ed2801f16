"""Med-R1: GRPO for vision-language models on medical multiple-choice questions."""
