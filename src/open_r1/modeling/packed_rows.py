"""Pack one prompt and its G completions into a single row, so that a training pass computes the prompt once.

A stock trainer runs the prompt again for every completion of a group. Here the prompt's keys and values are shared:
row = [prompt[:-1] | segment_1 | ... | segment_G] with segment_g = [prompt[-1], completion_g[:-1]]. Each segment sees
the shared prefix and, causally, itself. The last prompt token opens every segment, so a completion's first token needs
no special case and the scored positions are exactly the last G * C of the row.

Shapes: B prompts, G completions per prompt, P prompt tokens (left padded), C completion tokens (right padded),
L = P - 1 + G * C. Prior work: Prefix Grouper (arXiv 2506.05433), with another layout.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from trl.kernels import chunked_logprob

from open_r1.modeling.segment_attention import ATTENTION, CPU_TILE, Segments, attend_by_segment

IGNORED = -100


@dataclass(frozen=True)
class PackedRows:
    """Model inputs of B groups packed into B rows."""

    input_ids: torch.Tensor
    """(B, L) token ids."""
    position_ids: torch.Tensor
    """(B, L), or (3, B, L) for models with M-RoPE."""
    attention_mask: torch.Tensor
    """(B, 1, L, L) bool, true where a query (row) attends to a key (column); (1, 1, 1, 1) if `segments` is set, since
    transformers makes an L x L mask where it gets none, and passes on what has four dimensions."""
    segments: "Segments | None"
    """For long completions: input of `attend_by_segment`, instead of a mask that grows with L squared."""
    labels: torch.Tensor
    """(B, G * C) the tokens to predict at the last G * C positions, -100 where nothing is scored."""

    def model_inputs(self) -> dict[str, Any]:
        """Arguments of a forward call of a model with TRL's fused head, without the images."""
        inputs: dict[str, Any] = {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
            "shift_labels": self.labels,
            "fused_lm_head": True,
            "scored_positions": self.labels.size(1),
        }
        return inputs if self.segments is None else inputs | {"segments": self.segments}


def pack(
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    prompt_positions: torch.Tensor,
    completion_ids: torch.Tensor,
    completion_mask: torch.Tensor,
    by_segment: bool = False,
    prompt_lengths: Sequence[int] | None = None,
) -> PackedRows:
    """Lay B groups out as B rows.

    Args:
        prompt_ids: (B, P) left-padded prompt tokens; the last column holds every prompt's last token.
        prompt_mask: (B, P) 1 where a prompt token is real.
        prompt_positions: (B, P) or (3, B, P) position ids of the prompt tokens, from `prompt_batch.prompt_positions`.
        completion_ids: (B, G, C) right-padded completions.
        completion_mask: (B, G, C) 1 where a completion token is scored.
        by_segment: attend segment by segment (the model must use `ATTENTION`) instead of with one 4D mask.
        prompt_lengths: sums of `prompt_mask` where the host knows them; for None it waits for them.
    """
    batch, group, length = completion_ids.shape
    opening = prompt_ids[:, -1:, None].expand(batch, group, 1)
    segments = torch.cat([opening, completion_ids[:, :, :-1]], dim=2)  # (B, G, C)
    scored = completion_ids.masked_fill(completion_mask == 0, IGNORED)
    layout = None
    if by_segment:
        layout = Segments(prompt_mask, tuple(prompt_lengths or prompt_mask.sum(1).tolist()), group, length)
    return PackedRows(
        input_ids=torch.cat([prompt_ids[:, :-1], segments.flatten(1)], dim=1),
        position_ids=packed_positions(prompt_positions, group, length),
        attention_mask=prompt_mask.new_ones(1, 1, 1, 1, dtype=torch.bool)
        if by_segment
        else packed_mask(prompt_mask, group, length),
        segments=layout,
        labels=scored.flatten(1),
    )


def packed_positions(prompt_positions: torch.Tensor, group: int, length: int) -> torch.Tensor:
    """Positions of a packed row: the prefix keeps its own, and every segment continues from the last prompt token.

    The last prompt token is text, so its three M-RoPE coordinates are equal and one count serves all of them.
    """
    last_position = prompt_positions[..., -1:].unsqueeze(-1)  # (..., B, 1, 1)
    steps = torch.arange(length, device=prompt_positions.device)
    segments = (last_position + steps).expand(*last_position.shape[:-2], group, length).flatten(-2)
    return torch.cat([prompt_positions[..., :-1], segments], dim=-1)


def packed_mask(prompt_mask: torch.Tensor, group: int, length: int) -> torch.Tensor:
    """(B, 1, L, L) bool: causal; all see the prefix, and only a segment sees its own tokens.

    Left padding is never a key, except that a padded query sees itself: softmax over no key would be NaN.
    """
    prefix = prompt_mask.size(1) - 1
    device = prompt_mask.device
    # 0 in the prefix, g + 1 in segment g
    segment_of = torch.cat(
        [
            torch.zeros(prefix, dtype=torch.long, device=device),
            torch.arange(1, group + 1, device=device).repeat_interleave(length),
        ]
    )
    index = torch.arange(len(segment_of), device=device)
    causal = index[:, None] >= index[None, :]
    allowed = causal & ((segment_of[:, None] == segment_of[None, :]) | (segment_of[None, :] == 0))  # (L, L)
    is_token = torch.cat(
        [
            prompt_mask[:, :-1].bool(),
            prompt_mask.new_ones(len(prompt_mask), group * length, dtype=torch.bool),
        ],
        dim=1,
    )
    diagonal = torch.eye(len(segment_of), dtype=torch.bool, device=device)
    return ((allowed & is_token[:, None, :]) | diagonal)[:, None]


AttentionInterface.register(ATTENTION, attend_by_segment)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def use_small_tiles_without_gpu() -> None:
    """Let TRL's fused head use smaller tiles in this process if there is no GPU."""
    if not torch.cuda.is_available():
        chunked_logprob.TOKEN_CHUNK_SIZE = CPU_TILE
