"""GRPO from flags to a saved checkpoint: load questions, rewards and model, build the trainer and run it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from trl import ModelConfig

from open_r1.checkpoints.folder import name_base
from open_r1.checkpoints.names import model_source
from open_r1.checkpoints.processors import load_processor
from open_r1.common.command_line import require_vllm
from open_r1.common.errors import UserError
from open_r1.data.row_images import image_keys, row_images
from open_r1.rewards.registry import rewards_for
from open_r1.training.command_line.arguments import VQAArguments
from open_r1.training.command_line.grpo_config import GRPOTrainingConfig
from open_r1.training.command_line.parsing import parse
from open_r1.training.grpo.blind_answers import BlindAnswers
from open_r1.training.grpo.options import shared_prefix_line
from open_r1.training.grpo.trainer import SharedPrefixGRPOTrainer
from open_r1.training.memory.at_start import plan_at_start
from open_r1.training.memory.half_reference import shrink_reference
from open_r1.training.run_lifecycle import locked_output_folder, run_record_of, run_training
from open_r1.training.setup.adapters import quantization
from open_r1.training.setup.cost_estimate import CostEstimate, TryLongestBatch
from open_r1.training.setup.curriculum import Curriculum, Order, training_order
from open_r1.training.setup.questions import load_evaluation_rows, load_training_rows, require_one_step
from open_r1.training.setup.starting_model import starting_model
from open_r1.training.setup.tracking import CompletionsAsText, MetricsLog
from open_r1.training.setup.trainable_parts import (
    require_trainable,
    search_only_where_weights_are_unused,
    trainable_table,
)
from open_r1.training.watching.alarm_watch import watch_groups
from open_r1.training.watching.probe import ProbeWithoutImage
from open_r1.training.watching.progress import watch_progress
from open_r1.vocabulary.modes import Mode


def train_grpo(default_mode: Mode, **defaults: Any) -> int:
    """Train with GRPO by the flags of the command line.

    Args:
        default_mode: answer form without `--mode`.
        **defaults: further defaults of the entry script, by flag.

    Returns:
        The exit status: 0, `EXIT_INTERRUPTED` if a signal stopped the run, or `EXIT_ALARM` if an alarm did.

    Raises:
        UserError: for flags, data or checkpoints that cannot be used.
    """
    script, training, model_config = parse(defaults=defaults)
    mode = Mode(script.mode) if script.mode else default_mode
    with locked_output_folder(training) as checkpoint:
        return _train_grpo(mode, script, training, model_config, checkpoint)


def _train_grpo(
    mode: Mode, script: VQAArguments, training: GRPOTrainingConfig, model_config: ModelConfig, checkpoint: Path | None
) -> int:
    base = str(model_config.model_name_or_path)
    say = print if training.process_index == 0 else _silent
    for note in training.notes:
        say(note)
    quantization_config = quantization(model_config)
    if training.use_vllm:
        require_vllm("--use_vllm true", "give --use_vllm false to sample with transformers")

    rewards = rewards_for(script.reward_funcs, mode, script, training.max_completion_length)
    if script.base is not None:
        name_base(model_source(base), script.base)
    processor = load_processor(base, min_pixels=script.min_pixels, max_pixels=script.max_pixels)
    blind_answers = prepare_blind_answers(script, training, processor, mode, say)
    dataset, report, lengths = load_training_rows(script, processor, mode, training.device)
    say(report["line"])
    require_one_step(len(dataset), training)
    evaluation = load_evaluation_rows(script, training, processor, mode, dataset, report)
    if evaluation is not None:
        say(report["evaluation"]["line"])
    order = curriculum_order(script, training, dataset)
    if order is not None:
        say(order.line())
        report["curriculum"] = order.line()

    divides = plan_at_start(script, training, model_config, lengths, report["most_images"], say)
    search = training.ddp_find_unused_parameters  # TRL sets it
    with starting_model(script, training, model_config, quantization_config, say) as (model, adapters):
        trainer = SharedPrefixGRPOTrainer(
            model=model,
            args=training,
            reward_funcs=list(rewards),
            train_dataset=dataset,
            eval_dataset=evaluation,
            processing_class=processor,
            peft_config=adapters,
            open_images=row_images,
            image_keys=image_keys,
            shared_prefix=script.shared_prefix,
            verify=script.verify_shared_prefix,
            tokens_per_micro_batch=script.tokens_per_micro_batch,
            resample_dead_groups=script.resample_dead_groups,
            vision_cache_gib=script.vision_cache_gib,
            order=order,
            publish_completions=script.log_completions_publicly,
        )
    trainer.vision_learning_rate = script.vision_learning_rate
    use_blind_answers(trainer, script, blind_answers)
    require_one_kind(report["pictures"], trainer)
    require_trainable(trainer.model)
    search_only_where_weights_are_unused(trainer, report["pictures"], search)
    shrink_reference(trainer)
    if divides:
        trainer.divide_optimizer()
    add_early_checks(trainer, script, training, lengths)
    trainer.add_callback(MetricsLog())
    watch_progress(trainer)
    watch_groups(trainer, script.record, script.stop_on_alarm)
    trainer.add_callback(CompletionsAsText(trainer))
    say(step_line(mode, training, len(dataset if order is None else order(0))))
    say(shared_prefix_line(trainer))
    say(f"what trains:\n{trainable_table(trainer.model)}")
    return run_training(trainer, run_record_of(mode, script, training, model_config, report), checkpoint)


def prepare_blind_answers(
    script: VQAArguments, training: GRPOTrainingConfig, processor: Any, mode: Mode, say: Callable[[str], object]
) -> BlindAnswers | None:
    """What the reward `looking` and `--probe_steps` need; None without both.

    Raises:
        UserError: another flag takes its meaning away.
    """
    if "looking" in script.reward_funcs:
        if note := training.keep_sizes_of_rewards("looking"):
            say(note)
    elif not script.probe_steps:
        return None
    return BlindAnswers(processor, mode, cast(dict[str, Any] | None, training.chat_template_kwargs))


def use_blind_answers(trainer: SharedPrefixGRPOTrainer, script: VQAArguments, answers: BlindAnswers | None) -> None:
    """Give them to the reward `looking` and to the probe, whichever the run has."""
    if "looking" in script.reward_funcs:
        trainer.blind_answers = answers
    if answers is not None and script.probe_steps:
        trainer.add_callback(ProbeWithoutImage(trainer, answers, script.probe_steps))


def require_one_kind(images: str, trainer: SharedPrefixGRPOTrainer) -> None:
    """Refuse a mixture of questions with and without images where stock TRL's rows are computed.

    Args:
        images: whether all, some or none of the rows have an image.
        trainer: knows whether prompts are shared.

    Raises:
        UserError: with the reason.
    """
    if images == "some" and not trainer.shared_prefix:
        reason = trainer.unshared_reason or "--shared_prefix false"
        raise UserError(
            "some questions have an image and some have none, which stock TRL cannot train in one batch, and prompts "
            f"are not shared here ({reason}); train on one kind at a time"
        )


def curriculum_order(script: VQAArguments, training: GRPOTrainingConfig, dataset: Dataset) -> Order | None:
    """The order of `--curriculum`; None if TRL shuffles.

    Raises:
        UserError: if the difficulty file does not fit the data set.
    """
    if script.curriculum == Curriculum.NONE:
        return None
    window = int(training.generation_batch_size or 0) // int(training.num_generations or 1)
    path, ids = Path(str(script.difficulty)), dataset.with_format(None)["id"][:]
    return training_order(path, Curriculum(script.curriculum), script.hard_fraction, ids, window, training.seed)


def add_early_checks(
    trainer: SharedPrefixGRPOTrainer, script: VQAArguments, training: GRPOTrainingConfig, lengths: list[int]
) -> None:
    """Let the trainer print an estimate of the run's cost, and on a GPU try its longest batch before the first step.

    Args:
        trainer: the trainer.
        script: the flags.
        training: training arguments.
        lengths: tokens of each prompt, in the order of the data set.
    """
    trainer.add_callback(CostEstimate(trainer))
    try_batch = torch.cuda.is_available() if script.try_longest_batch is None else script.try_longest_batch
    if not try_batch or not trainer.shared_prefix:
        return
    longest = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))[: training.prompts_per_device]
    trainer.add_callback(TryLongestBatch(trainer, [trainer.train_dataset[index] for index in longest]))


def step_line(mode: Mode, training: GRPOTrainingConfig, prompts: int) -> str:
    """A log line with the prompts and completions of a step."""
    per_step = training.prompts_per_step
    return (
        f"{mode.value}: {training.prompts_per_device} prompts per device x {training.world_size} devices x "
        f"{training.gradient_accumulation_steps} accumulation = {per_step} prompts and "
        f"{training.completions_per_step} completions per optimizer step; "
        f"{prompts // per_step} steps per epoch"
    )


def _silent(*_: object) -> None:
    """Print nothing, on all processes but the first."""
