"""The memory plan of a run on real GPUs, before its model is loaded: one line, and whether the optimizer is divided."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from open_r1.modeling.agreement import on_any_process, stop_everywhere
from open_r1.training.memory.cards import Card
from open_r1.training.memory.flags_of_run import run_of
from open_r1.training.memory.model_size import NoSize
from open_r1.training.memory.plan import GIB, Division, Plan, planned
from open_r1.training.memory.plan_command import divided_text, size_of, verdict
from open_r1.training.memory.ways import DIVISIBLE, fits, ways, with_optimizer


def plan_at_start(
    script: Any,
    training: Any,
    model_config: Any,
    lengths: list[int],
    images: int,
    say: Callable[[str], object],
    card: Card | None = None,
) -> bool:
    """Say what each process will hold, stop a run that cannot fit, and choose whether to divide the optimizer.

    Args:
        script: our own flags.
        training: TRL's; of GRPO with `prompts_per_device`.
        model_config: the checkpoint and how it is loaded.
        lengths: tokens of each prompt.
        images: most images of one question.
        say: prints on the first process.
        card: of this process; None looks for it.

    Returns:
        Whether the optimizer's state is to be divided among the processes; the same on all of them.

    Raises:
        UserError: without a single token's activations the run holds more than a card has.
    """
    card = this_card(training) if card is None else card
    if card is None:
        return bool(script.shard_optimizer)
    values = vars(training) | vars(model_config) | vars(script)
    supervised = not hasattr(training, "prompts_per_device")
    if not supervised:
        values["per_device_train_batch_size"] = training.prompts_per_device
    can_divide = str(getattr(training.optim, "value", training.optim)) in DIVISIBLE
    try:
        size = size_of(str(model_config.model_name_or_path))
        run = run_of(
            values,
            size,
            training.world_size,
            supervised=supervised,
            prompt_tokens=max(lengths),
            images=images,
        )
        run = with_optimizer(run, card, script.shard_optimizer, can_divide)
        plan = planned(run, card.gib)
    except NoSize as error:
        say(f"no memory plan: {error}")
        return bool(script.shard_optimizer)
    divides = on_any_process(run.division is Division.OPTIMIZER, training.device)
    stop_everywhere(impossible(plan, card), training.device)
    say(start_line(plan, card))
    return divides or bool(script.shard_optimizer)


def this_card(training: Any) -> Card | None:
    """The GPU that this process trains on; None where there is none."""
    if training.device.type != "cuda":
        return None
    about = torch.cuda.get_device_properties(training.device)
    return Card(about.name, about.total_memory / GIB)


def impossible(plan: Plan, card: Card) -> str | None:
    """Why a run cannot fit whatever its longest pass is; None if it may."""
    if plan.certain_gib <= card.gib:
        return None
    listed = ", ".join(f"{item.name} {item.bytes / GIB:.1f}" for item in plan.items if item.is_certain)
    return (
        f"this run does not fit {card.name} with {card.gib:.1f} GiB: before the first token it holds "
        f"{plan.certain_gib:.1f} ({listed}). {remedies(plan, card)}"
    )


def start_line(plan: Plan, card: Card) -> str:
    """The plan in one line; a warning where it is tight or does not fit."""
    line = f"memory plan: {plan.gib:.1f} GiB on each card {plan.moment}; {verdict(plan, card)}"
    if plan.run.division is Division.OPTIMIZER:
        line += "; " + divided_text(planned(replace(plan.run, division=Division.NOTHING), card.gib), card)
    return line if fits(plan, card) else f"warning: {line}. {remedies(plan, card)}"


def remedies(plan: Plan, card: Card) -> str:
    """The gentlest changes that make it fit."""
    fitting = ways(plan.run, card)[:3]
    if not fitting:
        return "No change of flags known here makes it fit: take larger cards, more of them, or a smaller model"
    return "What would fit: " + "; ".join(f"{way.flags} ({way.plan.gib:.1f} GiB)" for way in fitting)
