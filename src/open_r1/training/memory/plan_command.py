"""`--plan CARD:N`: print what a run would hold on each of N cards, and end. It needs no GPU, no weights, no data."""

import json
from dataclasses import replace
from typing import Any

from open_r1.checkpoints.folder import adapter_base, is_adapter, read_config
from open_r1.checkpoints.names import local_source, processor_folder
from open_r1.training.memory.cards import parse_cards
from open_r1.training.memory.flags_of_run import run_of
from open_r1.training.memory.model_size import ImageShape, ModelSize, model_size
from open_r1.training.memory.plan import planned
from open_r1.training.memory.plan_text import plan_text
from open_r1.training.memory.ways import DIVISIBLE, with_optimizer
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import build_messages

LARGE_SIDE = 1024
"""Pixels of a square image, where the model takes images at sizes of their own."""


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
    """What the processor of a checkpoint makes of a large square image.

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
    image = Image.new("RGB", (LARGE_SIDE, LARGE_SIDE))
    inputs = processor(text=[text], images=[[image]], return_tensors="np")
    settings: Any = AutoConfig.for_model(**json.loads(config))
    token = getattr(settings, "image_token_id", None) or settings.image_token_index
    tokens = int((inputs["input_ids"] == token).sum())
    return ImageShape(tuple(inputs["pixel_values"].shape), tokens)
