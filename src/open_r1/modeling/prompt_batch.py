"""A batch of prompts with their images, and the positions that the model counts for them."""

from dataclasses import dataclass, field
from typing import Any

import torch

_IMAGE_NAMES = ("pixel_values", "image_grid_thw")


@dataclass
class PromptBatch:
    """B tokenized prompts with their images, as one processor call returns them."""

    ids: torch.Tensor
    """(B, P) left-padded token ids."""
    mask: torch.Tensor
    """(B, P) 1 where a token is real."""
    images_per_prompt: list[int]
    """B counts; 0 for a text-only prompt."""
    vision: dict[str, torch.Tensor] = field(default_factory=dict)
    """`pixel_values` (patches, features), `image_grid_thw` (images, 3), `mm_token_type_ids` (B, P); none for text.

    Behind a frozen vision tower `pixel_values` holds what the tower made of them, (tokens, hidden)."""

    def slice(self, start: int, stop: int) -> "PromptBatch":
        """Prompts `start` to `stop` with just their own images."""
        vision: dict[str, torch.Tensor] = {}
        first, last = sum(self.images_per_prompt[:start]), sum(self.images_per_prompt[:stop])
        if last > first:
            grid, values = self.vision["image_grid_thw"], self.vision["pixel_values"]
            patches = grid.prod(dim=-1)
            merged = int(patches.sum()) // len(values)  # 1, or the patches that a token of a frozen tower stands for
            row, end = int(patches[:first].sum()) // merged, int(patches[:last].sum()) // merged
            vision["pixel_values"] = values[row:end]
            vision["image_grid_thw"] = grid[first:last]
            vision["mm_token_type_ids"] = self.vision["mm_token_type_ids"][start:stop]
        return PromptBatch(self.ids[start:stop], self.mask[start:stop], self.images_per_prompt[start:stop], vision)

    def select(self, indices: list[int]) -> "PromptBatch":
        """The prompts at `indices`, each with just its own images."""
        parts = [self.slice(index, index + 1) for index in indices]
        with_images = [part.vision for part in parts if part.vision]
        names = _IMAGE_NAMES if with_images else ()
        vision = {name: torch.cat([part[name] for part in with_images]) for name in names}
        if with_images:
            vision["mm_token_type_ids"] = self.vision["mm_token_type_ids"][indices]
        return PromptBatch(self.ids[indices], self.mask[indices], [self.images_per_prompt[i] for i in indices], vision)

    def trimmed(self) -> "PromptBatch":
        """The same prompts without the columns that are padding in all of them."""
        first = int(self.mask.argmax(dim=1).min())
        vision = dict(self.vision)
        if vision:
            vision["mm_token_type_ids"] = vision["mm_token_type_ids"][:, first:]
        return PromptBatch(self.ids[:, first:], self.mask[:, first:], self.images_per_prompt, vision)

    @classmethod
    def join(cls, parts: list["PromptBatch"], pad_id: int) -> "PromptBatch":
        """The prompts of several batches in one, padded on the left to the widest."""
        width = max(part.ids.size(1) for part in parts)

        def widened(values: torch.Tensor, filler: int) -> torch.Tensor:
            return torch.nn.functional.pad(values, (width - values.size(1), 0), value=filler)

        vision: dict[str, torch.Tensor] = {}
        with_images = [part for part in parts if part.vision]
        if with_images:
            kinds = [part.vision.get("mm_token_type_ids", torch.zeros_like(part.ids)) for part in parts]
            vision = {name: torch.cat([part.vision[name] for part in with_images]) for name in _IMAGE_NAMES}
            vision["mm_token_type_ids"] = torch.cat([widened(each, 0) for each in kinds])
        return cls(
            torch.cat([widened(part.ids, pad_id) for part in parts]),
            torch.cat([widened(part.mask, 0) for part in parts]),
            [count for part in parts for count in part.images_per_prompt],
            vision,
        )

    def model_inputs(self) -> dict[str, torch.Tensor]:
        """The image arguments of a forward call whose position ids are given."""
        return {key: self.vision[key] for key in _IMAGE_NAMES if key in self.vision}


def inner_model(model: Any) -> Any:
    """The module below the LM head (and below LoRA), which counts positions and computes hidden states."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base.model


def prompt_positions(model: Any, prompts: PromptBatch) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Positions of the prompt tokens as the model itself counts them.

    Returns:
        Positions, (3, B, P) for models with M-RoPE and (B, P) for text models, and for the former the offset (B, 1)
        between the next position and the number of tokens seen.
    """
    inner = inner_model(model)
    text_positions = (prompts.mask.cumsum(-1) - 1).clamp(min=0)
    if not hasattr(inner, "get_rope_index"):
        return text_positions, None
    if "image_grid_thw" not in prompts.vision:
        return text_positions[None].expand(3, -1, -1), torch.zeros_like(prompts.ids[:, :1])
    positions, offset = inner.get_rope_index(
        prompts.ids,
        mm_token_type_ids=prompts.vision["mm_token_type_ids"],
        image_grid_thw=prompts.vision["image_grid_thw"],
        attention_mask=prompts.mask,
    )
    return positions, offset


def completion_lengths(tokens: torch.Tensor, end_ids: list[int]) -> torch.Tensor:
    """(N,) tokens of each completion up to and including its first end token; C where there is none."""
    ended = torch.isin(tokens, torch.tensor(end_ids, device=tokens.device))
    first = ended.int().argmax(dim=1) + 1
    return torch.where(ended.any(dim=1), first, tokens.size(1))
