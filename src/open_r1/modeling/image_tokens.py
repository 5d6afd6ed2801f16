"""Prompts with their images as token ids: one placeholder token for each image token."""

import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from open_r1.modeling.prompt_batch import PromptBatch


@dataclass(frozen=True)
class OpenedImage:
    """One image as the model takes it."""

    values: torch.Tensor
    """(patches, patch features), or (tokens, hidden) as a frozen vision tower has encoded it."""
    grid: torch.Tensor
    """(3,) patches in time, height and width."""


def encode_prompts(
    texts: Sequence[str], images: Sequence[Sequence[OpenedImage]], processor: Any, device: torch.device
) -> PromptBatch:
    """Tokenize prompts around images that are already processed; the same tokens as the processor's own call.

    Args:
        texts: prompts as the chat template writes them, with one placeholder per image.
        images: those of each prompt, in the order of the placeholders.
        processor: the checkpoint's processor, or the tokenizer of a text model.
        device: where the tensors go.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    shown = [image for each in images for image in each]
    if shown:
        merged = processor.image_processor.merge_size**2
        placeholder = processor.image_token
        texts = [
            spell_out(text, placeholder, [int(image.grid.prod()) // merged for image in each])
            for text, each in zip(texts, images, strict=True)
        ]
    encoded = tokenizer(list(texts), padding=True, padding_side="left", return_tensors="pt").to(device)
    vision = {}
    if shown:
        vision = {
            "pixel_values": torch.cat([image.values.to(device) for image in shown]),
            "image_grid_thw": torch.stack([image.grid for image in shown]).to(device),
            "mm_token_type_ids": (encoded["input_ids"] == processor.image_token_id).to(encoded["input_ids"].dtype),
        }
    return PromptBatch(encoded["input_ids"], encoded["attention_mask"], [len(each) for each in images], vision)


def spell_out(text: str, placeholder: str, counts: list[int]) -> str:
    """`text` with its placeholders repeated, the n-th `counts[n]` times: once per token that an image takes."""
    pieces = text.split(placeholder)
    assert len(pieces) == len(counts) + 1, f"{len(pieces) - 1} placeholders for {len(counts)} images"
    return pieces[0] + "".join(placeholder * count + piece for count, piece in zip(counts, pieces[1:], strict=True))


def take_features(tower: Any) -> None:
    """Let a vision tower pass on what it has made itself: given features (tokens, hidden), it returns them."""
    forward = tower.forward
    hidden = tower.config.out_hidden_size if hasattr(tower.config, "out_hidden_size") else tower.config.hidden_size
    patch = tower.config.in_channels * tower.config.temporal_patch_size * tower.config.patch_size**2
    assert hidden != patch, "features and patches of one width cannot be told apart"

    def features_or_forward(_self: Any, values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if values.size(-1) == hidden:
            return BaseModelOutputWithPooling(pooler_output=values)  # type: ignore[arg-type]
        return forward(values, *args, **kwargs)

    tower.forward = types.MethodType(features_or_forward, tower)
