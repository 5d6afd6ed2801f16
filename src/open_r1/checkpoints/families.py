"""The model families that can be trained and evaluated, and what is particular to each."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """What the code needs to know about a model family; everything else is read from the checkpoint."""

    model_class: str
    """Class in `transformers`."""
    has_vision: bool
    """It is shown images here: its processor takes them, and its vision tower is `model.visual`."""
    has_mrope: bool
    """Positions are (time, height, width), from the model's own `get_rope_index`."""
    base: str
    """A published model of the family; every size of a family has the same processor."""


FAMILIES: dict[str, Family] = {
    "qwen2_vl": Family("Qwen2VLForConditionalGeneration", True, True, "Qwen/Qwen2-VL-2B-Instruct"),
    "qwen2_5_vl": Family("Qwen2_5_VLForConditionalGeneration", True, True, "Qwen/Qwen2.5-VL-3B-Instruct"),
    "qwen2": Family("Qwen2ForCausalLM", False, False, "Qwen/Qwen2.5-1.5B-Instruct"),
    # It has a vision tower, which nothing here feeds: text questions only, with the tokenizer alone.
    "gemma3": Family("Gemma3ForConditionalGeneration", False, False, "google/gemma-3-12b-it"),
}

# Entries of config.json that name tokens which stand for images. One of them in a completion makes the next
# forward pass fail with "image features and image tokens do not match" (R1-V#91, TRL#3847).
IMAGE_TOKENS = (
    *("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"),
    *("boi_token_id", "eoi_token_id"),
)


def forbidden_token_ids(config: Any) -> list[int]:
    """Ids that must never be generated: the tokens that stand for images. Empty for a text model.

    Args:
        config: the loaded model's `config`.
    """
    ids = (getattr(config, name, None) for name in IMAGE_TOKENS)
    return sorted({token for token in ids if isinstance(token, int)})


def windowed_layers(config: Any) -> int:
    """How many layers of the language model look back over a window of tokens only, as most of Gemma 3's do.

    Args:
        config: the loaded model's `config`.
    """
    kinds = getattr(config.get_text_config(), "layer_types", None) or []
    return sum(kind != "full_attention" for kind in kinds)
