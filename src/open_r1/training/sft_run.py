"""Supervised fine-tuning, the baseline of GRPO: the same questions and prompts, with the solution as target.

The loss covers `<answer> C </answer>` and the end of the turn only. (Med-R1's baseline also trained on the prompt, and
on a literal `None` before the answer.) The training is TRL's SFTTrainer.
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
from open_r1.data.question_checks import answer_in
from open_r1.data.row_images import row_images
from open_r1.modeling.lean_layers import adapt_layers
from open_r1.modeling.prompt_batch import inner_model
from open_r1.modeling.vision_attention import adapt_vision
from open_r1.training.command_line.arguments import QuestionArguments, SFTDefaults
from open_r1.training.command_line.grpo_config import GRPOTrainingConfig, RunSettings
from open_r1.training.command_line.parsing import parse_into
from open_r1.training.memory.at_start import plan_at_start
from open_r1.training.recovery.resumable_trainer import ResumableTrainer
from open_r1.training.run_lifecycle import locked_output_folder, run_record_of, run_training
from open_r1.training.setup.adapters import quantization
from open_r1.training.setup.prompt_check import prompts_of
from open_r1.training.setup.questions import load_evaluation_rows, load_training_rows
from open_r1.training.setup.starting_model import starting_model
from open_r1.training.setup.tracking import MetricsLog
from open_r1.training.setup.trainable_parts import (
    require_trainable,
    search_only_where_weights_are_unused,
    trainable_table,
)
from open_r1.training.watching.progress import watch_progress
from open_r1.vocabulary.modes import Mode

Examples = dict[str, list[Any]]


@dataclass
class SFTTrainingConfig(RunSettings, SFTDefaults, SFTConfig):
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
        """Solutions per optimizer step: one per question."""
        return self.prompts_per_step


def train_sft(default_mode: Mode = Mode.NOTHINK) -> int:
    """Fine-tune on solutions by the flags of the command line.

    Args:
        default_mode: answer form without `--mode`.

    Returns:
        The exit status: 0, or `EXIT_INTERRUPTED` if a signal stopped the run, which can be resumed.

    Raises:
        UserError: for flags, data or checkpoints that cannot be used.
    """
    script, training, model_config = parse_into((QuestionArguments, SFTTrainingConfig, ModelConfig), None, None)
    mode = Mode(script.mode) if script.mode else default_mode
    if mode is not Mode.NOTHINK:
        raise UserError(
            f"--mode {mode}: that prompt needs reasoning, and the data has none to learn from; "
            f"fine-tune with --mode {Mode.NOTHINK}"
        )
    with locked_output_folder(training) as checkpoint:
        return _train_sft(mode, script, training, model_config, checkpoint)


def _train_sft(
    mode: Mode,
    script: QuestionArguments,
    training: SFTTrainingConfig,
    model_config: ModelConfig,
    checkpoint: Path | None,
) -> int:
    say: Callable[..., object] = print if training.process_index == 0 else (lambda *_: None)
    for note in training.notes:
        say(note)
    quantization_config = quantization(model_config)
    base = str(model_config.model_name_or_path)
    if script.base is not None:
        name_base(model_source(base), script.base)
    processor = load_processor(base, min_pixels=script.min_pixels, max_pixels=script.max_pixels)
    rows, report, lengths = load_training_rows(script, processor, mode, training.device)
    say(report["line"])
    evaluation = load_evaluation_rows(script, training, processor, mode, rows, report)
    if evaluation is not None:
        say(report["evaluation"]["line"])
    divides = plan_at_start(script, training, model_config, lengths, report["most_images"], say)
    search = training.ddp_find_unused_parameters  # TRL sets it
    with starting_model(script, training, model_config, quantization_config, say) as (model, adapters):
        trainer = build_trainer(model, processor, rows, mode, training, adapters, evaluation)
    trainer.vision_learning_rate = script.vision_learning_rate
    require_trainable(trainer.model)
    search_only_where_weights_are_unused(trainer, report["pictures"], search)
    if divides:
        trainer.divide_optimizer()
    say(
        f"sft: {training.prompts_per_step} questions per optimizer step over {training.world_size} devices, "
        f"{-(-len(rows) // training.prompts_per_step)} steps per epoch"
    )
    say(f"what trains:\n{trainable_table(trainer.model)}")
    trainer.add_callback(MetricsLog())
    watch_progress(trainer)
    run_record = run_record_of(mode, script, training, model_config, report) | {"method": "sft"}
    return run_training(trainer, run_record, checkpoint)


class ResumableSFTTrainer(ResumableTrainer, SFTTrainer):
    """TRL's trainer with complete checkpoints."""


def build_trainer(
    model: Any,
    processor: Any,
    rows: Dataset,
    mode: Mode,
    training: SFTTrainingConfig,
    peft_config: LoraConfig | None = None,
    evaluation: Dataset | None = None,
) -> ResumableSFTTrainer:
    """Build TRL's trainer for rows of `load_rows`; images are opened batch by batch, texts are tokenized beforehand.

    Args:
        model: in float32 or bfloat16.
        processor: of the checkpoint; a tokenizer for a text model.
        rows: of `load_rows`; without images for a text model.
        mode: answer form of the prompt.
        training: training arguments.
        peft_config: settings of adapters; None trains the full model.
        evaluation: rows for evaluation during training.

    Raises:
        UserError: if the data has images and the model takes none.
    """
    has_vision = hasattr(processor, "image_processor")
    make = example_maker(mode, has_vision)

    def examples(dataset: Dataset) -> Dataset:
        if has_vision:
            return dataset.with_transform(make)
        plain = dataset.with_format(None)
        return Dataset.from_dict(make({name: plain[name][:] for name in plain.column_names}))

    adapt_vision(inner_model(model))
    adapt_layers(model)
    return ResumableSFTTrainer(
        model=model.train(),
        args=training,
        train_dataset=examples(rows),
        eval_dataset=None if evaluation is None else examples(evaluation),
        processing_class=processor,
        peft_config=peft_config,
    )


def example_maker(mode: Mode, has_vision: bool) -> Callable[[Examples], Examples]:
    """Return a function that turns rows into TRL's prompt, completion and, for a vision model, images."""

    def make(batch: Examples) -> Examples:
        if any(batch["images"]) and not has_vision:
            raise UserError("the data set has images and this model takes none; use a vision-language checkpoint")
        answers = [f"<answer> {answer_in(solution)} </answer>" for solution in batch["solution"]]
        examples = {
            "prompt": prompts_of(batch, mode),
            "completion": [[{"role": "assistant", "content": answer}] for answer in answers],
        }
        if has_vision:
            examples["images"] = [row_images({"images": images}) for images in batch["images"]]
        return examples

    return make
