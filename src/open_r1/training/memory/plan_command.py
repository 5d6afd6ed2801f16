"""`--plan CARD:N`: print what a run would hold on each of N cards, and end. It needs no GPU, no weights, no data.

Also a plan in words, for that and for the line with which a run begins.
"""

import json
from dataclasses import replace
from typing import Any

from open_r1.checkpoints.folder import adapter_base, is_adapter, read_config
from open_r1.checkpoints.names import local_source, processor_folder
from open_r1.training.memory.activations import Batch
from open_r1.training.memory.cards import Card, parse_cards
from open_r1.training.memory.flags_of_run import run_of
from open_r1.training.memory.model_size import ImageShape, ModelSize, model_size
from open_r1.training.memory.plan import GIB, SPARE, Division, Plan, planned
from open_r1.training.memory.ways import DIVISIBLE, Way, fits, ways, with_optimizer
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import build_messages

SHOWN_WAYS = 6
SIDE = 384
"""Pixels of a side of an image in prepared sets; some processors cut larger ones into tiles."""


def plan_for(flags: Any, supervised: bool) -> str:
    """The plan of a command line.

    Args:
        flags: `TrainingFlags` whose `--plan` names a card.
        supervised: SFT instead of GRPO.

    Raises:
        UserError: no such card, or no config.json of the model here or on the hub.
    """
    values = vars(flags.library) | vars(flags.defaults) | vars(flags.script)
    card, count = parse_cards(values["plan"])
    name = str(values["model_name_or_path"])
    run = run_of(values, size_of(name), count, supervised=supervised)
    can_divide = str(values.get("optim") or DIVISIBLE[0]) in DIVISIBLE
    run = with_optimizer(run, card, values["shard_optimizer"], can_divide)
    return plan_text(name, planned(run, card.gib), card)


def size_of(name: str) -> ModelSize:
    """The size of a checkpoint by its config.json, fetched from the hub without the weights where it is not here.

    Raises:
        UserError: there is no such checkpoint.
    """
    folder = local_source(name) or processor_folder(name)
    if is_adapter(folder):
        folder = adapter_base(folder)
    size = model_size(read_config(folder))
    return replace(size, image=image_shape(name, size.config)) if size.config else size


def image_shape(name: str, config: str) -> ImageShape:
    """What the processor of a checkpoint makes of an image of a prepared set.

    Args:
        name: of the checkpoint.
        config: its config.json.

    Raises:
        UserError: the checkpoint has no processor.
    """
    from PIL import Image
    from transformers import AutoConfig

    from open_r1.checkpoints.processors import load_processor

    processor = load_processor(name)
    messages = build_messages("?", Mode.NOTHINK, 1)
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    image = Image.new("RGB", (SIDE, SIDE))
    inputs = processor(text=[text], images=[[image]], return_tensors="np")
    settings: Any = AutoConfig.for_model(**json.loads(config))
    token = getattr(settings, "image_token_id", None) or settings.image_token_index
    tokens = int((inputs["input_ids"] == token).sum())
    return ImageShape(tuple(inputs["pixel_values"].shape), tokens)


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
        undivided = planned(replace(run, division=Division.NOTHING), card.gib)
        lines.append(f"  {divided_text(undivided, card)}")
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


def divided_text(undivided: Plan, card: Card) -> str:
    """Why the optimizer is divided and what that means; `undivided` is the plan without it."""
    why = (
        "as asked for"
        if fits(undivided, card)
        else f"because undivided it would come to {undivided.gib:.1f} GiB a card"
    )
    return (
        f"the optimizer's state is divided among {undivided.run.processes} processes, {why}. The trained weights are "
        "the same either way (--shard_optimizer false keeps the state undivided)"
    )


def ways_lines(fitting: list[Way]) -> list[str]:
    """What to change, a line each."""
    if not fitting:
        return ["  no change of flags known here makes it fit: take a larger card, more of them, or a smaller model"]
    return ["what would fit:", *(f"  {way.flags:<72}{way.plan.gib:8.1f}" for way in fitting[:SHOWN_WAYS])]
