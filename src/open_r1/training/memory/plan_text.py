"""A memory plan in words: the table of `--plan`, and the line with which a run begins."""

from dataclasses import replace

from open_r1.training.memory.activations import Batch
from open_r1.training.memory.cards import Card
from open_r1.training.memory.plan import GIB, SPARE, Division, Plan, planned
from open_r1.training.memory.ways import Way, fits, ways

SHOWN_WAYS = 6


def plan_text(name: str, plan: Plan, card: Card) -> str:
    """What `--plan` prints.

    Args:
        name: of the checkpoint.
        plan: of the run, with the optimizer divided or not as it would be.
        card: of each process.
    """
    run = plan.run
    cards = f"{run.processes} x {card.name}" if run.processes > 1 else card.name
    lines = [
        f"{name}: {run.size.weights / 1e9:.2f} billion weights, {run.method} training, {run.numbers}, "
        f"on {cards} with {card.gib:.1f} GiB each; planned, not measured",
        batch_line(run.batch),
        f"GiB on each card, {plan.moment}:",
    ]
    lines += [f"  {item.name:<52}{item.bytes / GIB:8.1f}" for item in plan.items]
    lines.append(f"  {'all':<52}{plan.gib:8.1f}  of {card.gib:.1f}: {verdict(plan, card)}")
    if run.division is Division.OPTIMIZER:
        whole = planned(replace(run, division=Division.NOTHING), card.gib)
        lines.append(f"  {divided_text(whole, card)}")
    if not fits(plan, card):
        lines += ways_lines(ways(run, card))
    return "\n".join(lines)


def batch_line(batch: Batch) -> str:
    """The longest micro-batch."""
    image = f" ({batch.image_tokens} of its image)" if batch.image_tokens else ""
    prompts = f"{batch.prompts_per_pass} prompt{'s' if batch.prompts_per_pass > 1 else ''}"
    return (
        f"longest pass: {prompts} of {batch.prompt_tokens} tokens{image} with {batch.group} completions of "
        f"{batch.completion_tokens}: {batch.tokens} tokens"
    )


def verdict(plan: Plan, card: Card) -> str:
    """Whether it fits, and by how much."""
    left = card.gib - plan.gib
    if fits(plan, card):
        return f"fits, {left:.1f} to spare"
    if left >= 0:
        return f"tight, {left:.1f} to spare where {SPARE:.0f} should be"
    return f"does not fit, {-left:.1f} too much"


def divided_text(whole: Plan, card: Card) -> str:
    """What the division of the optimizer means, beside the plan with a whole one."""
    why = "was asked for" if fits(whole, card) else f"is, because with a whole one it were {whole.gib:.1f} GiB"
    return (
        f"the optimizer's state is divided among {whole.run.processes} processes; that {why}. The trained weights are "
        "the same (--shard_optimizer false keeps it whole)"
    )


def ways_lines(found: list[Way]) -> list[str]:
    """What to change, a line each."""
    if not found:
        return ["  no change of flags known here makes it fit: take a larger card, more of them, or a smaller model"]
    return ["what would fit:", *(f"  {way.flags:<72}{way.plan.gib:8.1f}" for way in found[:SHOWN_WAYS])]
