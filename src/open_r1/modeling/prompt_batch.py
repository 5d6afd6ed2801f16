"""Batches of prompts with their images, and their position ids."""

from dataclasses import dataclass, field
from typing import Any

import torch

_IMAGE_NAMES = ("pixel_values", "image_grid_thw")


def upload(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy on `device`; with a GPU the host does not wait for what the GPU is doing, as it does in `to`."""
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def rows_at(values: torch.Tensor, indices: list[int]) -> torch.Tensor:
    """`values[indices]`, for which the host would wait until a GPU has the list."""
    return torch.stack([values[index] for index in indices])


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
    """`pixel_values` (patches, patch values), `image_grid_thw` (images, 3), `mm_token_type_ids` (B, P); none for text.

    The latter two are on the CPU, where positions are computed. With a frozen vision tower `pixel_values` holds its
    features, (tokens, hidden)."""
    lengths: list[int] = field(default_factory=list)
    """Real tokens of each prompt, known to the host; if left out it waits for them."""

    def __post_init__(self) -> None:
        if not self.lengths:
            self.lengths = self.mask.sum(1).tolist()

    def slice(self, start: int, stop: int) -> "PromptBatch":
        """Prompts `start` to `stop` with their images."""
        vision: dict[str, torch.Tensor] = {}
        first_image, end_image = sum(self.images_per_prompt[:start]), sum(self.images_per_prompt[:stop])
        if end_image > first_image:
            grid, values = self.vision["image_grid_thw"], self.vision["pixel_values"]
            patches = grid.prod(dim=-1)
            patches_per_value = int(patches.sum()) // len(values)  # 1, or more for features of a frozen tower
            start_value = int(patches[:first_image].sum()) // patches_per_value
            end_value = int(patches[:end_image].sum()) // patches_per_value
            vision["pixel_values"] = values[start_value:end_value]
            vision["image_grid_thw"] = grid[first_image:end_image]
            vision["mm_token_type_ids"] = self.vision["mm_token_type_ids"][start:stop]
        part = slice(start, stop)
        return PromptBatch(self.ids[part], self.mask[part], self.images_per_prompt[part], vision, self.lengths[part])

    def select(self, indices: list[int]) -> "PromptBatch":
        """The prompts at `indices` with their images."""
        prompts = [self.slice(index, index + 1) for index in indices]
        with_images = [prompt for prompt in prompts if prompt.vision]
        names = _IMAGE_NAMES if with_images else ()
        vision = {name: torch.cat([prompt.vision[name] for prompt in with_images]) for name in names}
        if with_images:
            vision["mm_token_type_ids"] = rows_at(self.vision["mm_token_type_ids"], indices)
        counts, lengths = [self.images_per_prompt[i] for i in indices], [self.lengths[i] for i in indices]
        return PromptBatch(rows_at(self.ids, indices), rows_at(self.mask, indices), counts, vision, lengths)

    def trimmed(self) -> "PromptBatch":
        """The same prompts without the columns that are padding in all of them."""
        first_column = self.ids.size(1) - max(self.lengths)
        vision = dict(self.vision)
        if vision:
            vision["mm_token_type_ids"] = vision["mm_token_type_ids"][:, first_column:]
        ids, mask = self.ids[:, first_column:], self.mask[:, first_column:]
        return PromptBatch(ids, mask, self.images_per_prompt, vision, self.lengths)

    @classmethod
    def join(cls, batches: list["PromptBatch"], pad_id: int) -> "PromptBatch":
        """The prompts of several batches in one, padded on the left to the widest."""
        width = max(batch.ids.size(1) for batch in batches)

        def padded(values: torch.Tensor, filler: int) -> torch.Tensor:
            return torch.nn.functional.pad(values, (width - values.size(1), 0), value=filler)

        vision: dict[str, torch.Tensor] = {}
        with_images = [batch for batch in batches if batch.vision]
        if with_images:
            token_types = [
                batch.vision.get("mm_token_type_ids", batch.ids.new_zeros(batch.ids.shape, device="cpu"))
                for batch in batches
            ]
            vision = {name: torch.cat([batch.vision[name] for batch in with_images]) for name in _IMAGE_NAMES}
            vision["mm_token_type_ids"] = torch.cat([padded(type_ids, 0) for type_ids in token_types])
        return cls(
            torch.cat([padded(batch.ids, pad_id) for batch in batches]),
            torch.cat([padded(batch.mask, 0) for batch in batches]),
            [count for batch in batches for count in batch.images_per_prompt],
            vision,
            [length for batch in batches for length in batch.lengths],
        )

    def model_inputs(self) -> dict[str, torch.Tensor]:
        """Image arguments of a forward call with explicit position ids."""
        return {key: self.vision[key] for key in _IMAGE_NAMES if key in self.vision}


def inner_model(model: Any) -> Any:
    """The module below the LM head (and below LoRA), which computes position ids and hidden states."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base.base_model


def prompt_positions(model: Any, prompts: PromptBatch) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Position ids of the prompt tokens, computed by the model's own rule.

    Returns:
        Positions, (3, B, P) for models with M-RoPE and (B, P) for text models; and for M-RoPE the offset (B, 1) of the
        next position from the number of tokens, else None.
    """
    inner = inner_model(model)
    text_positions = (prompts.mask.cumsum(-1) - 1).clamp(min=0)
    if not hasattr(inner, "get_rope_index"):
        return text_positions, None
    if "image_grid_thw" not in prompts.vision:
        return text_positions[None].expand(3, -1, -1), torch.zeros_like(prompts.ids[:, :1])
    token_types = prompts.vision["mm_token_type_ids"].cpu()
    mask = prompts.mask
    if mask.device.type != "cpu":  # padded on the left
        width = token_types.size(1)
        mask = (torch.arange(width) >= width - torch.tensor(prompts.lengths)[:, None]).long()
    positions, offset = inner.get_rope_index(
        token_types,  # in place of the ids, of which only the number matters, and which may be on a GPU
        mm_token_type_ids=token_types,
        image_grid_thw=prompts.vision["image_grid_thw"].cpu(),
        attention_mask=mask,
    )
    device = prompts.ids.device
    return upload(positions, device), upload(offset, device)


def completion_lengths(tokens: torch.Tensor, end_ids: list[int]) -> torch.Tensor:
    """(N,) lengths of completions (N, C) up to and including the first end token; C without one."""
    is_end = torch.isin(tokens, torch.tensor(end_ids, device=tokens.device))
    lengths = is_end.int().argmax(dim=1) + 1
    return torch.where(is_end.any(dim=1), lengths, tokens.size(1))
