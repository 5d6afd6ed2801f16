"""Flags of short runs that move every weight, and whether they did."""

from pathlib import Path

from safetensors.torch import load_file

# A reward that tells random completions apart: the longer a wrong answer the less, and some end before others.
# One of qwen2's 504 tokens ends a completion: all 8 of a step reach 200 tokens with probability
# (503 / 504) ** 1600 = 0.04, those of both steps with 0.002.
MOVES = ["--reward_funcs", "cosine", "--num_generations", "8", "--max_completion_length", "200"]


def moved(run: Path) -> bool:
    """Whether the half of every adapter that begins at zero has left it."""
    weights = load_file(run / "adapter_model.safetensors")
    return all(bool(weight.any()) for name, weight in weights.items() if "lora_B" in name)
