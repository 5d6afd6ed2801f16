"""Which class loads a checkpoint, and what its config.json says of tokens and windows.

No list decides what is supported: a family is whatever transformers builds a causal language model or an image-text
model for. The table names the families whose size and published base are known beforehand.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """Properties of a model family; everything else is read from the checkpoint."""

    model_class: str
    """Class in `transformers`."""
    has_vision: bool
    """Whether it is used with images."""
    base: str | None = None
    """A published model of the family; every size of a family has the same processor."""

    @property
    def processor_hint(self) -> str:
        """The flag that gives a checkpoint a processor."""
        return f"--processor {self.base or 'NAME, the model that it was trained from'}"


FAMILIES: dict[str, Family] = {
    "qwen2_vl": Family("Qwen2VLForConditionalGeneration", True, "Qwen/Qwen2-VL-2B-Instruct"),
    "qwen2_5_vl": Family("Qwen2_5_VLForConditionalGeneration", True, "Qwen/Qwen2.5-VL-3B-Instruct"),
    "qwen3_vl": Family("Qwen3VLForConditionalGeneration", True, "Qwen/Qwen3-VL-2B-Instruct"),
    "qwen2": Family("Qwen2ForCausalLM", False, "Qwen/Qwen2.5-1.5B-Instruct"),
    "gemma3": Family("Gemma3ForConditionalGeneration", True, "google/gemma-3-12b-it"),
}


def family_of(model_type: Any) -> Family | None:
    """The family by config.json's `model_type`; None if transformers has no class for it."""
    if not isinstance(model_type, str) or model_type in FAMILIES:
        return FAMILIES.get(model_type)
    from transformers.models.auto import modeling_auto

    mappings = (
        (modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, True),
        (modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, False),
    )
    for classes, has_vision in mappings:
        if model_type in classes:
            return Family(classes[model_type], has_vision)
    return None


# Entries of config.json that name tokens which stand for images. One of them in a completion makes the next
# forward pass fail with "image features and image tokens do not match" (R1-V#91, TRL#3847).
IMAGE_TOKENS = (
    *("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"),
    *("boi_token_id", "eoi_token_id", "image_token_index", "boi_token_index", "eoi_token_index"),
)


def forbidden_token_ids(config: Any) -> list[int]:
    """Ids that must never be generated: the tokens that stand for images. Empty for a text model.

    Args:
        config: the loaded model's `config`.
    """
    ids = (getattr(config, name, None) for name in IMAGE_TOKENS)
    return sorted({token for token in ids if isinstance(token, int)})
