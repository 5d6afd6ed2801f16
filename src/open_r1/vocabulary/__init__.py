"""Names that everything agrees on: labels, modes, prompts, published runs."""
