"""Pack one prompt and its G completions into a single row, so that a training pass computes the prompt once.

A stock trainer runs the prompt again for every completion of a group. Here the prompt's keys and values are shared:
row = [prompt[:-1] | segment_1 | ... | segment_G] with segment_g = [prompt[-1], completion_g[:-1]]. Each segment sees
the shared prefix and, causally, itself. The last prompt token opens every segment, so a completion's first token needs
no special case and the scored positions are exactly the last G * C of the row.

Shapes: B prompts, G completions per prompt, P prompt tokens (left padded), C completion tokens (right padded),
L = P - 1 + G * C. Prior work on the idea: Prefix Grouper (arXiv 2506.05433); the layout here is our own.
"""

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
    """What the model's forward takes for B groups packed into B rows."""

    input_ids: torch.Tensor
    """(B, L) token ids."""
    position_ids: torch.Tensor
    """(B, L), or (3, B, L) for models with M-RoPE."""
    attention_mask: torch.Tensor | None
    """(B, 1, L, L) bool, true where a query (row) may look at a key (column); None where `segments` says it."""
    segments: "Segments | None"
    """For long completions: what `attend_by_segment` needs, in place of a mask that grows with L squared."""
    labels: torch.Tensor
    """(B, G * C) the token that each of the last G * C positions has to predict, -100 where nothing is scored."""

    def model_inputs(self) -> dict[str, Any]:
        """Arguments of a forward call of a model with TRL's fused head; images come beside them."""
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
) -> PackedRows:
    """Lay B groups out as B rows.

    Args:
        prompt_ids: (B, P) left-padded prompt tokens; the last column holds every prompt's last token.
        prompt_mask: (B, P) 1 where a prompt token is real.
        prompt_positions: (B, P) or (3, B, P) positions of the prompt tokens as the model itself counts them.
        completion_ids: (B, G, C) right-padded completions.
        completion_mask: (B, G, C) 1 where a completion token is scored.
        by_segment: attend segment by segment (the model must run `ATTENTION`) instead of under one 4D mask.
    """
    batch, group, length = completion_ids.shape
    opening = prompt_ids[:, -1:, None].expand(batch, group, 1)
    segments = torch.cat([opening, completion_ids[:, :, :-1]], dim=2)  # (B, G, C)
    scored = completion_ids.masked_fill(completion_mask == 0, IGNORED)
    return PackedRows(
        input_ids=torch.cat([prompt_ids[:, :-1], segments.flatten(1)], dim=1),
        position_ids=packed_positions(prompt_positions, group, length),
        attention_mask=None if by_segment else packed_mask(prompt_mask, group, length),
        segments=Segments.of(prompt_mask, group, length) if by_segment else None,
        labels=scored.flatten(1),
    )


def packed_positions(prompt_positions: torch.Tensor, group: int, length: int) -> torch.Tensor:
    """Positions of a packed row: the prefix as given, then every segment counts on from the last prompt token.

    The last prompt token is text, so its three M-RoPE coordinates are equal and one count serves all of them.
    """
    last = prompt_positions[..., -1:].unsqueeze(-1)  # (..., B, 1, 1)
    steps = torch.arange(length, device=prompt_positions.device)
    segments = (last + steps).expand(*last.shape[:-2], group, length).flatten(-2)
    return torch.cat([prompt_positions[..., :-1], segments], dim=-1)


def packed_mask(prompt_mask: torch.Tensor, group: int, length: int) -> torch.Tensor:
    """(B, 1, L, L) bool: causal, the prefix for everyone, a segment only for itself.

    Left padding is nobody's key; a padded query sees itself alone, because a row without any key is NaN in softmax.
    """
    prefix = prompt_mask.size(1) - 1
    device = prompt_mask.device
    # 0 for the prefix, g + 1 for segment g
    owner = torch.cat(
        [
            torch.zeros(prefix, dtype=torch.long, device=device),
            torch.arange(1, group + 1, device=device).repeat_interleave(length),
        ]
    )
    index = torch.arange(len(owner), device=device)
    causal = index[:, None] >= index[None, :]
    allowed = causal & ((owner[:, None] == owner[None, :]) | (owner[None, :] == 0))  # (L, L)
    real = torch.cat(
        [
            prompt_mask[:, :-1].bool(),
            prompt_mask.new_ones(len(prompt_mask), group * length, dtype=torch.bool),
        ],
        dim=1,
    )
    own = torch.eye(len(owner), dtype=torch.bool, device=device)
    return ((allowed & real[:, None, :]) | own)[:, None]


AttentionInterface.register(ATTENTION, attend_by_segment)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def use_small_tiles_without_gpu() -> None:
    """Give TRL's fused head smaller tiles where there is no GPU, for the whole process."""
    if not torch.cuda.is_available():
        chunked_logprob.TOKEN_CHUNK_SIZE = CPU_TILE


def tokens_computed(prompt_length: int, group: int, length: int) -> tuple[int, int]:
    """Tokens of one group's training pass: (ours, what a row per completion would compute)."""
    return prompt_length - 1 + group * length, group * (prompt_length + length)
