"""Flags of short runs that move every weight, and whether they did."""

from pathlib import Path

from safetensors.torch import load_file

# A reward that tells random completions apart: the longer a wrong answer the less, and some end before others.
MOVES = ["--reward_funcs", "cosine", "--max_completion_length", "200"]


def moved(run: Path) -> bool:
    """Whether the half of every adapter that begins at zero has left it."""
    weights = load_file(run / "adapter_model.safetensors")
    return all(bool(weight.any()) for name, weight in weights.items() if "lora_B" in name)
