"""Groups of completions over prompts with images, in our layout and in stock TRL's, to hold the two together."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from trl import GRPOTrainer

from open_r1.modeling.packed_rows import pack
from open_r1.modeling.prompt_batch import PromptBatch, prompt_positions

Grid = tuple[int, int, int]
IDS = {
    "<|endoftext|>": 300,
    "<|im_start|>": 301,
    "<|im_end|>": 302,
    "<|vision_start|>": 303,
    "<|vision_end|>": 304,
    "<|image_pad|>": 305,
    "<|video_pad|>": 306,
}
"""Special tokens of the tiny models of 320 tokens that the tests of `modeling` build."""


@dataclass
class Groups:
    """B prompts with their images and G completions each."""

    prompts: PromptBatch
    completion_ids: torch.Tensor  # (B, G, C)
    completion_mask: torch.Tensor  # (B, G, C)

    @property
    def sizes(self) -> tuple[int, int, int]:
        batch, group, length = self.completion_ids.shape
        return batch, group, length


def make_groups(
    config: Any, grids: list[list[Grid]], text_lengths: list[int], lengths: list[list[int]], seed: int = 1
) -> Groups:
    """Random prompts, one per entry: its images' patch grids, its text tokens, its completions' lengths."""
    random = torch.Generator().manual_seed(seed)
    ordinary = 256  # byte tokens only: never a special token

    def tokens(count: int) -> list[int]:
        return torch.randint(0, ordinary, (count,), generator=random).tolist()

    vision_config = getattr(config, "vision_config", None)
    patch_values = 0 if vision_config is None else 3 * 2 * vision_config.patch_size**2
    prompts, kinds, pixels, shapes = [], [], [], []
    for prompt_grids, text in zip(grids, text_lengths, strict=True):
        ids, kind = tokens(text // 2), [0] * (text // 2)
        for grid in prompt_grids:
            count = grid[0] * grid[1] * grid[2]
            ids += [config.vision_start_token_id] + [config.image_token_id] * (count // 4)
            ids += [config.vision_end_token_id]
            kind += [0] + [1] * (count // 4) + [0]
            pixels.append(torch.randn(count, patch_values, generator=random))
            shapes.append(grid)
        rest = text - text // 2
        prompts.append(ids + tokens(rest))
        kinds.append(kind + [0] * rest)
    pad = int(config.get_text_config().pad_token_id)
    vision = {}
    if pixels:
        vision = {
            "pixel_values": torch.cat(pixels),
            "image_grid_thw": torch.tensor(shapes),
            "mm_token_type_ids": _left(kinds, 0),
        }
    batch = PromptBatch(_left(prompts, pad), _left([[1] * len(p) for p in prompts], 0), [len(g) for g in grids], vision)
    longest = max(map(max, lengths))
    ids = torch.full((len(grids), len(lengths[0]), longest), pad)
    mask = torch.zeros_like(ids)
    for b, row in enumerate(lengths):
        for g, count in enumerate(row):
            ids[b, g, :count] = torch.tensor(tokens(count))
            mask[b, g, :count] = 1
    return Groups(batch, ids, mask)


def _left(rows: list[list[int]], value: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[value] * (width - len(row)) + row for row in rows])


class _Accelerator:
    autocast = staticmethod(nullcontext)


class _StockTrainer:
    """As much of a GRPOTrainer as its log-probability method touches."""

    accelerator = _Accelerator


def stock_inputs(groups: Groups) -> tuple[torch.Tensor, torch.Tensor, int, dict[str, Any]]:
    """What stock TRL feeds the model: a row per completion, every image repeated."""
    batch, group, length = groups.sizes
    prompts = groups.prompts
    ids = torch.cat([prompts.ids.repeat_interleave(group, 0), groups.completion_ids.flatten(0, 1)], 1)
    mask = torch.cat([prompts.mask.repeat_interleave(group, 0), groups.completion_mask.flatten(0, 1)], 1)
    extra: dict[str, Any] = {}
    if prompts.vision:
        row_vision = [prompts.slice(b, b + 1).vision for b in range(batch) for _ in range(group)]
        with_images = [vision for vision in row_vision if vision]
        kinds = prompts.vision["mm_token_type_ids"].repeat_interleave(group, 0)
        extra = {
            "pixel_values": torch.cat([vision["pixel_values"] for vision in with_images]),
            "image_grid_thw": torch.cat([vision["image_grid_thw"] for vision in with_images]),
            "num_images": [count for count in prompts.images_per_prompt for _ in range(group)],
            "mm_token_type_ids": torch.cat([kinds, kinds.new_zeros(batch * group, length)], 1),
        }
    return ids, mask, length, extra


def stock_logps(model: Any, groups: Groups) -> tuple[torch.Tensor, torch.Tensor]:
    """(B * G, C) log-probabilities and entropies by TRL's own method."""
    method = GRPOTrainer._get_per_token_logps_and_entropies
    while hasattr(method, "__wrapped__"):
        method = method.__wrapped__
    ids, mask, length, extra = stock_inputs(groups)
    logps, entropies, _ = method(_StockTrainer, model, ids, mask, length, compute_entropy=True, **extra)
    return logps, entropies


def packed_logps(model: Any, groups: Groups, by_segment: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """(B * G, C) log-probabilities and entropies with each prompt computed once."""
    length = groups.sizes[2]
    prompts = groups.prompts
    positions, _ = prompt_positions(model, prompts)
    packed = pack(prompts.ids, prompts.mask, positions, groups.completion_ids, groups.completion_mask, by_segment)
    outputs = model(**packed.model_inputs(), **prompts.model_inputs())
    return outputs.log_probs.view(-1, length), outputs.entropy.view(-1, length)
