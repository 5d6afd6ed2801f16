"""Log-probabilities of whole groups of completions, each prompt computed once.

TRL calls its methods with one row per completion. A `GroupPass` holds what these rows lack.
Shapes: B prompts, G completions per prompt, C completion tokens.
"""

from dataclasses import dataclass, field
from typing import Any

import torch

from open_r1.modeling.packed_rows import pack
from open_r1.modeling.prompt_batch import PromptBatch, prompt_positions, rows_at, upload

# Groups with more completion tokens attend segment by segment. On a CPU one 4D mask is fast at 160 tokens; at 16 x 128
# a pass took 875 ms with it and 278 ms by segment (benchmarks/grpo_step.py).
LONG_SEGMENTS = 256


@dataclass
class GroupPass:
    """The groups that TRL's methods are called for."""

    prompts: PromptBatch
    """B prompts with their images."""
    live_groups: list[int] | None = None
    """Indices of the groups to compute, None for all: a group whose advantages are all zero needs no pass."""
    filler: torch.Tensor | None = None
    """(B, G, C) log-probabilities to use for groups that are not computed; None for zeros."""
    questions: list[dict[str, Any]] = field(default_factory=list)
    """The B rows that they were made of; none where completions are only scored."""
    rewards: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    """(completions of all processes, reward functions); empty before rewards are computed."""

    def live(self, values: torch.Tensor) -> torch.Tensor:
        """Select the groups to compute from (B, ...) values."""
        return values if self.live_groups is None else rows_at(values, self.live_groups)

    def live_prompts(self) -> PromptBatch:
        """The prompts of the groups to compute."""
        return self.prompts if self.live_groups is None else self.prompts.select(self.live_groups)

    def spread(self, values: torch.Tensor, filler: torch.Tensor) -> torch.Tensor:
        """Expand values of the computed groups to all groups.

        Args:
            values: (live groups * G, C).
            filler: (B, G, C) values for the other groups.

        Returns:
            (B * G, C).
        """
        index = upload(torch.tensor(self.live_groups), values.device)
        return filler.clone().index_copy(0, index, values.view(len(index), *filler.shape[1:])).flatten(0, 1)

    def spread_scores(
        self, log_probs: torch.Tensor, entropies: torch.Tensor | None, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Expand scores of the computed groups to all groups, (B * G, C).

        A skipped group has advantage zero, and with `filler` a ratio of one, so that its loss is not 0 * inf. Its
        entropy is the mean of the computed groups, so that the logged mean does not change.

        Args:
            log_probs: (live groups * G, C).
            entropies: of the same shape, or None.
            mask: (live groups, G, C) 1 where a completion token is real.
        """
        if self.live_groups is None:
            return log_probs, entropies
        shape = (len(self.prompts.ids), *mask.shape[1:])
        filler = log_probs.new_zeros(shape) if self.filler is None else self.filler
        if entropies is not None:
            mean = (entropies.detach() * mask.flatten(0, 1)).sum() / mask.sum().clamp(min=1)
            entropies = self.spread(entropies, mean.expand(shape))
        return self.spread(log_probs, filler), entropies


def live_groups(advantages: torch.Tensor) -> list[int]:
    """Indices of the groups of (B, G) advantages that have a gradient without a KL or entropy term.

    At least one group is computed, so that every process makes the same calls.
    """
    return advantages.abs().amax(dim=1).nonzero().flatten().tolist() or [0]


def score_groups(
    accelerator: Any,
    model: Any,
    prompts: PromptBatch,
    completions: torch.Tensor,
    mask: torch.Tensor,
    groups_per_forward: int,
    with_entropy: bool,
    touch_vision: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Score completions in packed rows: a prompt, then its completions as segments (see `packed_rows`).

    Args:
        accelerator: for autocast and for unwrapping the model.
        model: adapted by `prepare_model`.
        prompts: B prompts.
        completions: (B, G, C) token ids.
        mask: (B, G, C) 1 where a token is real.
        groups_per_forward: groups in one forward pass.
        with_entropy: whether to compute entropies.
        touch_vision: whether to call the vision tower without images too, because other processes wait for it.

    Returns:
        (B * G, C) log-probabilities and entropies; None for entropies without `with_entropy`.
    """
    total, group, length = completions.shape
    log_probs, entropies = [], []
    for start in range(0, total, groups_per_forward):
        stop = min(start + groups_per_forward, total)
        chunk = prompts.slice(start, stop)
        with torch.no_grad():
            positions, _ = prompt_positions(accelerator.unwrap_model(model), chunk)
            by_segment = group * length > LONG_SEGMENTS
            segments = completions[start:stop], mask[start:stop]
            packed = pack(chunk.ids, chunk.mask, positions, *segments, by_segment, chunk.lengths)
        with accelerator.autocast():
            extra_inputs = {"touch_vision": True} if touch_vision and not chunk.vision else {}
            outputs = model(**packed.model_inputs(), **chunk.model_inputs(), **extra_inputs)
        log_probs.append(outputs.log_probs.view(-1, length))
        if with_entropy:
            entropies.append(outputs.entropy.view(-1, length))
    return torch.cat(log_probs), torch.cat(entropies) if with_entropy else None
