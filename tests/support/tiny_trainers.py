"""A tiny GRPO trainer, its questions and rewards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from PIL import Image

from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.training.command_line.grpo_config import GRPOTrainingConfig
from open_r1.training.grpo.trainer import SharedPrefixGRPOTrainer
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import build_messages

PROBLEMS = [
    "What imaging modality was used? A)CT, B)MRI, C)Ultrasound, D)X-Ray",
    "Which structure is shown? A)liver, B)kidney",
    "How severe is the lesion in this image of the whole abdomen? A)minimal, B)mild, C)moderate, D)severe, E)none",
    "Is this normal? A)yes, B)no",
]

OPTIONS = (
    *("shared_prefix", "share_rollout", "verify", "tokens_per_micro_batch", "resample_dead_groups"),
    "vision_cache_gib",
)

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (120, 120, 120)]
SIZES = [(384, 384), (384, 192), (200, 384), (384, 384)]


def length_reward(completions: list[Any], **_: Any) -> list[float]:
    """Longer is better: a reward with spread in every group, which a tiny random model's accuracy has not."""
    return [len(completion[0]["content"]) / 10 for completion in completions]


def colours(row: dict[str, Any]) -> list[int]:
    """The numbers of the images of a row: `image` is one, None or a list."""
    value = row["image"]
    return [] if value is None else value if isinstance(value, list) else [value]


def open_colour(row: dict[str, Any]) -> list[Image.Image]:
    return [Image.new("RGB", SIZES[number], COLOURS[number]) for number in colours(row)]


def make_trainer(checkpoint: Path, output: Path, images: Sequence[int | list[int] | None], **settings: Any) -> Any:
    """A trainer on a question for each entry of `images`: an image, none or, where all entries are lists, several."""
    settings = dict(settings)
    lora, reward = settings.pop("lora", False), settings.pop("reward", length_reward)
    model, dropout = settings.pop("model", None), settings.pop("lora_dropout", 0.0)
    options = {name: settings.pop(name) for name in OPTIONS if name in settings}
    arguments = {
        "output_dir": str(output),
        "per_device_train_batch_size": 2,
        "num_generations": 3,
        "max_completion_length": 6,
        "learning_rate": 1e-3,
        "max_steps": 1,
        "save_strategy": "no",
        "logging_steps": 1,
        "shuffle_dataset": False,
        "disable_tqdm": True,
        "seed": 7,
    }
    rows = Dataset.from_dict({"image": list(images), "problem": PROBLEMS[: len(images)]})

    def add_prompt(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        pairs = zip(batch["problem"], batch["image"], strict=True)
        return batch | {
            "prompt": [build_messages(p, Mode.NOTHINK, len(colours({"image": image}))) for p, image in pairs]
        }

    config = GRPOTrainingConfig(**(arguments | settings))  # before the model: ZeRO-3 divides weights as they load
    return SharedPrefixGRPOTrainer(
        model=model or load_model(checkpoint, dtype=torch.float32),
        args=config,
        reward_funcs=[reward],
        train_dataset=rows.with_transform(add_prompt),
        processing_class=load_processor(checkpoint),
        open_images=open_colour,
        image_keys=colours,
        **options,
        peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj", "up_proj"], lora_dropout=dropout)
        if lora
        else None,
    )


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}


LOSSES = ("bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo")
