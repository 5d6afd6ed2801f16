"""What to change where a plan does not fit, and the choice between a whole and a divided optimizer."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from open_r1.training.memory.cards import Card
from open_r1.training.memory.plan import SPARE, Division, Method, Plan, Run, planned

RECIPES = "recipes/deepspeed"
DIVISIBLE = ("adamw_torch_fused", "adamw_torch")
"""Kinds of `--optim` that are divided unasked: each weight's update depends on that weight alone."""


@dataclass(frozen=True)
class Way:
    """A change of a run's flags, and what it comes to."""

    flags: str
    plan: Plan


def fits(plan: Plan, card: Card) -> bool:
    """Whether a card holds it with `SPARE` left."""
    return plan.gib + SPARE <= card.gib


def with_optimizer(run: Run, card: Card, asked: bool | None, can_divide: bool = True) -> Run:
    """The run with its optimizer divided where this was asked for, or where a whole one does not fit the card.

    Args:
        run: as the flags have it.
        card: of each process.
        asked: `--shard_optimizer`.
        can_divide: whether the optimizer's kind allows it.
    """
    if asked is not None or not can_divide or not may_divide(run) or fits(planned(run, card.gib), card):
        return run
    return replace(run, division=Division.OPTIMIZER)


def may_divide(run: Run) -> bool:
    """Whether there is something to divide, and nobody else divides it. Adapters' states are small."""
    return run.division is Division.NOTHING and run.processes > 1 and run.method is Method.FULL


def ways(run: Run, card: Card) -> list[Way]:
    """Changes by which a run that does not fit would fit, the gentlest first."""
    changes = [Way(flags, planned(changed, card.gib)) for flags, changed in _changes(run)]
    return [way for way in changes if fits(way.plan, card)]


def _changes(run: Run) -> Iterator[tuple[str, Run]]:
    small = replace(run, checkpointing=True)
    if not run.checkpointing:
        yield "--gradient_checkpointing true", small
    budget = run.batch.row
    if run.batch.prompts > 1 and run.batch.shares_prefix and run.batch.prompts_per_pass > 1:
        yield f"--tokens_per_micro_batch {budget}", replace(run, batch=replace(run.batch, token_budget=budget))
    if run.method is Method.FULL and run.processes > 1:
        for stage, division in ((2, Division.ZERO2), (3, Division.ZERO3)):
            if run.division is not division:
                flags = f"--deepspeed {RECIPES}/zero{stage}.json"
                yield flags, replace(run, division=division)
                yield f"{flags} --gradient_checkpointing true", replace(small, division=division)
    for processes in (2, 4, 8):
        if processes > run.processes and run.method is Method.FULL:
            more = replace(run, processes=processes, accumulates=True)
            if more.division is Division.NOTHING:
                more = replace(more, division=Division.OPTIMIZER)
            yield f"{processes} GPUs", more
    lora = replace(small, method=Method.LORA, division=Division.NOTHING)
    half = replace(lora, half_weights=True)
    if run.method is Method.FULL:
        yield "--use_peft --gradient_checkpointing true", lora
    if run.method in (Method.FULL, Method.LORA) and not run.half_weights:
        yield "--use_peft --dtype bfloat16 --gradient_checkpointing true", half
    if run.method is not Method.QLORA:
        yield (
            "--use_peft --load_in_4bit --dtype bfloat16 --gradient_checkpointing true",
            replace(half, method=Method.QLORA),
        )
