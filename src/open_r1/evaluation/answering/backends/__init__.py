"""What turns prompts into completions: decoding with transformers, drawing of samples, vLLM."""
