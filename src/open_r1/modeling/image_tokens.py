"""Tokenize prompts with images: one placeholder token for every token that an image takes."""

import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from open_r1.modeling.prompt_batch import PromptBatch, upload


@dataclass(frozen=True)
class ProcessedImage:
    """One image as model input."""

    values: torch.Tensor
    """(patches, patch values) as the image processor returns them, or (tokens, hidden) features of a vision tower."""
    grid: torch.Tensor
    """(3,) numbers of patches in time, height and width."""


def encode_prompts(
    texts: Sequence[str], images: Sequence[Sequence[ProcessedImage]], processor: Any, device: torch.device
) -> PromptBatch:
    """Tokenize prompts whose images are already processed; the tokens equal those of the checkpoint's processor.

    Args:
        texts: prompts rendered by the chat template, with one placeholder per image.
        images: the images of each prompt, in the order of the placeholders.
        processor: the checkpoint's processor, or the tokenizer of a text model.
        device: device of the returned tensors.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    all_images = [image for prompt_images in images for image in prompt_images]
    if all_images:
        patches_per_token = processor.image_processor.merge_size**2
        placeholder = processor.image_token
        texts = [
            repeat_placeholders(
                text, placeholder, [int(image.grid.prod()) // patches_per_token for image in prompt_images]
            )
            for text, prompt_images in zip(texts, images, strict=True)
        ]
    # The template has written what a text begins with; many tokenizers would write it again.
    encoded = tokenizer(list(texts), padding=True, padding_side="left", return_tensors="pt", add_special_tokens=False)
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    vision = {}
    if all_images:
        vision = {
            "pixel_values": upload(torch.cat([image.values for image in all_images]), device),
            "image_grid_thw": torch.stack([image.grid for image in all_images]).cpu(),
            "mm_token_type_ids": (ids == processor.image_token_id).to(ids.dtype),
        }
    counts, lengths = [len(prompt_images) for prompt_images in images], mask.sum(1).tolist()
    return PromptBatch(upload(ids, device), upload(mask, device), counts, vision, lengths)


def repeat_placeholders(text: str, placeholder: str, counts: list[int]) -> str:
    """Repeat the n-th placeholder of a text `counts[n]` times: once per token of its image."""
    pieces = text.split(placeholder)
    assert len(pieces) == len(counts) + 1, f"{len(pieces) - 1} placeholders for {len(counts)} images"
    return pieces[0] + "".join(placeholder * count + piece for count, piece in zip(counts, pieces[1:], strict=True))


def accept_features(tower: Any) -> None:
    """Let a vision tower take features that it computed earlier, (tokens, hidden), and return them unchanged."""
    forward = tower.forward
    out_width = tower.config.out_hidden_size if hasattr(tower.config, "out_hidden_size") else tower.config.hidden_size
    patch_values = tower.config.in_channels * tower.config.temporal_patch_size * tower.config.patch_size**2
    assert out_width != patch_values, "features cannot be distinguished from patches of the same width"

    def features_or_forward(_self: Any, values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if values.size(-1) == out_width:
            return BaseModelOutputWithPooling(pooler_output=values)  # type: ignore[arg-type]
        return forward(values, *args, **kwargs)

    tower.forward = types.MethodType(features_or_forward, tower)
