"""Supervised fine-tuning, the baseline of both systems: the same questions and prompts as GRPO, the solution as target.

The model reads the prompt and learns `<answer> C </answer>` and the end of its turn, nothing else. (Med-R1's own
baseline trained on the prompt too, and on a literal `None` before the answer.) The training is TRL's SFTTrainer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from trl import ModelConfig, SFTConfig, SFTTrainer

from open_r1.checkpoints.folder import name_base
from open_r1.checkpoints.names import model_source
from open_r1.checkpoints.processors import load_processor
from open_r1.common.errors import UserError
from open_r1.data.row_images import opened_row_images
from open_r1.grading.problems import solution_letter
from open_r1.training.command_line.arguments import QuestionArguments, SFTDefaults
from open_r1.training.command_line.grpo_config import GRPOTrainingConfig, PublicSettings
from open_r1.training.command_line.parsing import parse_into
from open_r1.training.recovery.resumable_trainer import ResumableTrainer
from open_r1.training.run_lifecycle import own_folder, run_story, run_training
from open_r1.training.setup.adapters import quantization
from open_r1.training.setup.questions import load_evaluation_rows, load_training_rows
from open_r1.training.setup.starting_model import starting_model
from open_r1.training.setup.tracking import MetricsLog
from open_r1.training.setup.trainable_parts import require_trainable, trainable_table
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import build_messages

Examples = dict[str, list[Any]]


@dataclass
class SFTTrainingConfig(PublicSettings, SFTDefaults, SFTConfig):
    """`trl.SFTConfig` with the settings of Med-R1's baseline: 1 epoch, 2e-5 cosine, 128 sequences per step."""

    fit_to_hardware = GRPOTrainingConfig.fit_to_hardware

    def __post_init__(self) -> None:
        SFTDefaults.__post_init__(self)
        self.notes: list[str] = []
        self.fit_to_hardware()  # type: ignore[misc]
        if self.packing or self.padding_free:
            raise UserError("--packing and --padding_free put several questions in one row, which images do not allow")
        SFTConfig.__post_init__(self)

    @property
    def prompts_per_step(self) -> int:
        """Questions per optimizer step over all processes."""
        return self.per_device_train_batch_size * self.world_size * self.gradient_accumulation_steps

    @property
    def completions_per_step(self) -> int:
        """One solution per question."""
        return self.prompts_per_step


def train_sft(default_mode: Mode = Mode.NOTHINK) -> int:
    """Fine-tune on solutions as the command line says.

    Args:
        default_mode: whose prompt is asked, unless `--mode` names another.

    Returns:
        The exit status: 0, or `EXIT_INTERRUPTED` of a run that was told to stop and can be continued.

    Raises:
        UserError: for flags, data or checkpoints that cannot be used; nothing has been trained then.
    """
    script, training, model_config = parse_into((QuestionArguments, SFTTrainingConfig, ModelConfig), None, None)
    mode = Mode(script.mode) if script.mode else default_mode
    if mode is not Mode.NOTHINK:
        raise UserError(
            f"--mode {mode}: that prompt asks for thoughts, and the data has none to learn from; "
            f"fine-tune with --mode {Mode.NOTHINK}"
        )
    with own_folder(training) as continued:
        return _train_sft(mode, script, training, model_config, continued)


def _train_sft(
    mode: Mode,
    script: QuestionArguments,
    training: SFTTrainingConfig,
    model_config: ModelConfig,
    continued: Path | None,
) -> int:
    say: Callable[..., object] = print if training.process_index == 0 else (lambda *_: None)
    for note in training.notes:
        say(note)
    packed = quantization(model_config)
    checkpoint = str(model_config.model_name_or_path)
    if script.base is not None:
        name_base(model_source(checkpoint), script.base)
    processor = load_processor(checkpoint, min_pixels=script.min_pixels, max_pixels=script.max_pixels)
    rows, report, _ = load_training_rows(script, processor, mode)
    say(report["line"])
    asked = load_evaluation_rows(script, training, processor, mode, rows, report)
    if asked is not None:
        say(report["evaluation"]["line"])
    with starting_model(script, training, model_config, packed, say) as (model, adapters):
        trainer = build_trainer(model, processor, rows, mode, training, adapters, asked)
    require_trainable(trainer.model)
    if script.shard_optimizer:
        trainer.divide_optimizer()
    say(
        f"sft: {training.prompts_per_step} questions per optimizer step over {training.world_size} devices, "
        f"{-(-len(rows) // training.prompts_per_step)} steps per epoch"
    )
    say(f"what trains:\n{trainable_table(trainer.model)}")
    trainer.add_callback(MetricsLog())
    story = run_story(mode, script, training, model_config, report) | {"method": "sft"}
    return run_training(trainer, story, continued)


class ResumableSFTTrainer(ResumableTrainer, SFTTrainer):
    """TRL's trainer with whole checkpoints."""


def build_trainer(
    model: Any,
    processor: Any,
    rows: Dataset,
    mode: Mode,
    training: SFTTrainingConfig,
    peft_config: LoraConfig | None = None,
    asked: Dataset | None = None,
) -> ResumableSFTTrainer:
    """TRL's trainer over rows of `load_rows`: images are opened batch by batch, texts tokenized beforehand.

    Args:
        model: in float32 or bfloat16.
        processor: the model's own; a bare tokenizer for a text model.
        rows: with image, problem and solution; a text model can have none with an image.
        mode: whose prompt is asked.
        training: the settings.
        peft_config: the adapters; None trains the whole model.
        asked: rows to evaluate on while training.

    Raises:
        UserError: an image for a model that sees none.
    """
    has_vision = hasattr(processor, "image_processor")
    make = example_maker(mode, has_vision)

    def examples(of: Dataset) -> Dataset:
        if has_vision:
            return of.with_transform(make)
        plain = of.with_format(None)
        return Dataset.from_dict(make({name: plain[name][:] for name in ("image", "problem", "solution")}))

    return ResumableSFTTrainer(
        model=model.train(),
        args=training,
        train_dataset=examples(rows),
        eval_dataset=None if asked is None else examples(asked),
        processing_class=processor,
        peft_config=peft_config,
    )


def example_maker(mode: Mode, has_vision: bool) -> Callable[[Examples], Examples]:
    """Turns a batch of rows into TRL's prompt, completion and, for a model that sees, a list of images per row."""

    def make(batch: Examples) -> Examples:
        with_images = [image is not None for image in batch["image"]]
        if any(with_images) and not has_vision:
            raise UserError("the data set has images and this model cannot see; take a vision-language checkpoint")
        prompts = [
            build_messages(problem, mode, has_image=has_image)
            for problem, has_image in zip(batch["problem"], with_images, strict=True)
        ]
        answers = [f"<answer> {solution_letter(solution)} </answer>" for solution in batch["solution"]]
        examples = {
            "prompt": prompts,
            "completion": [[{"role": "assistant", "content": answer}] for answer in answers],
        }
        if has_vision:
            examples["images"] = [opened_row_images({"image": image}) for image in batch["image"]]
        return examples

    return make
