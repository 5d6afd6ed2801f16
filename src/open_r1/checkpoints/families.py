"""The supported model families and how they differ."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """Properties of a model family; everything else is read from the checkpoint."""

    model_class: str
    """Class in `transformers`."""
    has_vision: bool
    """Whether it is used with images; its vision tower is then `model.visual`."""
    has_mrope: bool
    """Whether positions are (time, height, width), from the model's `get_rope_index`."""
    base: str
    """A published model of the family; every size of a family has the same processor."""


FAMILIES: dict[str, Family] = {
    "qwen2_vl": Family("Qwen2VLForConditionalGeneration", True, True, "Qwen/Qwen2-VL-2B-Instruct"),
    "qwen2_5_vl": Family("Qwen2_5_VLForConditionalGeneration", True, True, "Qwen/Qwen2.5-VL-3B-Instruct"),
    "qwen2": Family("Qwen2ForCausalLM", False, False, "Qwen/Qwen2.5-1.5B-Instruct"),
    # Its vision tower is not used here: text questions only, with the tokenizer alone.
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
    """The number of language model layers with sliding-window attention, as most of Gemma 3's have.

    Args:
        config: the loaded model's `config`.
    """
    kinds = getattr(config.get_text_config(), "layer_types", None) or []
    return sum(kind != "full_attention" for kind in kinds)
