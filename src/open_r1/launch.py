"""GRPO from flags to a saved checkpoint: questions, rewards, model and trainer are put together and run."""

import importlib
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import BitsAndBytesConfig
from trl import ModelConfig

from open_r1.checkpoints import load_processor, model_source, name_base, resolve_dtype, torch_dtype
from open_r1.config import GRPOTrainingConfig, VQAArguments, parse
from open_r1.curriculum import Curriculum, Order
from open_r1.difficulty import training_order
from open_r1.errors import UserError
from open_r1.foresight import Estimate, TryLongest
from open_r1.grpo_options import path_line
from open_r1.rewards import rewards_for
from open_r1.running import own_folder, run_story, run_training
from open_r1.runs import Mode
from open_r1.starting_model import starting_model
from open_r1.tracking import CompletionsAsText, MetricsLog
from open_r1.trainable import VISION, require_trainable, trainable_table
from open_r1.trainer import SharedPrefixGRPOTrainer
from open_r1.training_rows import load_evaluation_rows, load_training_rows, require_one_step
from open_r1.vllm_extra import require_vllm
from open_r1.vqa_data import picture_key, row_pictures


def train_grpo(default_mode: Mode, **defaults: Any) -> int:
    """Train with GRPO as the command line says.

    Args:
        default_mode: answer form of the entry script, unless `--mode` names another.
        **defaults: further defaults of the entry script, by flag.

    Returns:
        The exit status: 0, or `EXIT_INTERRUPTED` of a run that was told to stop and can be continued.

    Raises:
        UserError: for flags, data or checkpoints that cannot be used; nothing has been trained then.
    """
    script, training, model_config = parse(defaults=defaults)
    mode = Mode(script.mode) if script.mode else default_mode
    with own_folder(training) as continued:
        return _train_grpo(mode, script, training, model_config, continued)


def _train_grpo(
    mode: Mode, script: VQAArguments, training: GRPOTrainingConfig, model_config: ModelConfig, continued: Path | None
) -> int:
    checkpoint = str(model_config.model_name_or_path)
    say = print if training.process_index == 0 else _silent
    for note in training.notes:
        say(note)
    packed = quantization(model_config)
    if training.use_vllm:
        require_vllm("--use_vllm true", "give --use_vllm false to sample with transformers")

    rewards = rewards_for(script.reward_funcs, mode, script, training.max_completion_length)
    if script.base is not None:
        name_base(model_source(checkpoint), script.base)
    processor = load_processor(checkpoint, min_pixels=script.min_pixels, max_pixels=script.max_pixels)
    dataset, report, lengths = load_training_rows(script, processor, mode)
    say(report["line"])
    require_one_step(len(dataset), training)
    evaluation = load_evaluation_rows(script, training, processor, mode, dataset, report)
    if evaluation is not None:
        say(report["evaluation"]["line"])
    if report["pictures"] == "some" and not script.shared_prefix:
        raise UserError(
            "some questions have a picture and some have none, which stock TRL's rows cannot hold in one batch; "
            "leave --shared_prefix on, or train on one kind at a time"
        )
    order = curriculum_order(script, training, dataset)
    if order is not None:
        say(order.line())
        report["curriculum"] = order.line()

    with starting_model(script, training, model_config, packed, say) as (model, adapters):
        trainer = SharedPrefixGRPOTrainer(
            model=model,
            args=training,
            reward_funcs=list(rewards),
            train_dataset=dataset,
            eval_dataset=evaluation,
            processing_class=processor,
            peft_config=adapters,
            open_pictures=row_pictures,
            picture_key=picture_key,
            shared_prefix=script.shared_prefix,
            verify=script.verify_shared_prefix,
            tokens_per_micro_batch=script.tokens_per_micro_batch,
            resample_dead_groups=script.resample_dead_groups,
            vision_cache_gib=script.vision_cache_gib,
            order=order,
            publish_completions=script.log_completions_publicly,
        )
    require_trainable(trainer.model)
    look_ahead(trainer, script, training, lengths)
    trainer.add_callback(MetricsLog())
    trainer.add_callback(CompletionsAsText(trainer))
    say(plan_line(mode, training, len(dataset if order is None else order(0))))
    say(path_line(trainer))
    say(f"what trains:\n{trainable_table(trainer.model)}")

    return run_training(trainer, run_story(mode, script, training, model_config, report), continued)


def curriculum_order(script: VQAArguments, training: GRPOTrainingConfig, dataset: Dataset) -> Order | None:
    """The order that the flags ask for; None where TRL is to shuffle.

    Raises:
        UserError: the difficulty file does not serve this data set.
    """
    if script.curriculum == Curriculum.NONE:
        return None
    window = int(training.generation_batch_size or 0) // int(training.num_generations or 1)
    path, ids = Path(str(script.difficulty)), dataset.with_format(None)["id"][:]
    return training_order(path, Curriculum(script.curriculum), script.hard_fraction, ids, window, training.seed)


def look_ahead(
    trainer: SharedPrefixGRPOTrainer, script: VQAArguments, training: GRPOTrainingConfig, lengths: list[int]
) -> None:
    """Have the trainer say early what the run will cost, and try its longest batch where memory may not suffice.

    Args:
        trainer: to be told.
        script: the flags.
        training: whose batch size it is.
        lengths: tokens of each prompt of the data set, in its order.
    """
    trainer.add_callback(Estimate(trainer))
    wanted = torch.cuda.is_available() if script.try_longest_batch is None else script.try_longest_batch
    if not wanted or not trainer.shared_prefix:
        return
    longest = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))[: training.prompts_per_device]
    trainer.add_callback(TryLongest(trainer, [trainer.train_dataset[index] for index in longest]))


def quantization(model_config: ModelConfig) -> BitsAndBytesConfig | None:
    """How `--load_in_4bit` packs the frozen base; None without it. The head and all that sees stay as they are.

    Raises:
        UserError: without LoRA or bitsandbytes, or for `--load_in_8bit`, which we do not offer.
    """
    if model_config.load_in_8bit:
        raise UserError("--load_in_8bit is not supported, so the base would be loaded whole; use --load_in_4bit")
    if not model_config.load_in_4bit:
        return None
    if not model_config.use_peft:
        raise UserError("--load_in_4bit freezes the base, so nothing would train; add --use_peft")
    try:
        importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise UserError(
            f"--load_in_4bit needs bitsandbytes, which cannot be imported here ({error}); pip install '.[quant]', "
            "or leave the flag out to train LoRA on the whole base"
        ) from error
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_compute_dtype=resolve_dtype(torch_dtype(model_config.dtype)),
        bnb_4bit_quant_type=model_config.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=model_config.use_bnb_nested_quant,
        bnb_4bit_quant_storage=model_config.bnb_4bit_quant_storage,
        # of 4 bits too, in spite of its name; matched from a name's beginning (transformers 5.23)
        llm_int8_skip_modules=["lm_head", *(f"model.{part}" for part in VISION)],
    )


def plan_line(mode: Mode, training: GRPOTrainingConfig, prompts: int) -> str:
    """Both ways to count a step, so that nobody has to guess which one a flag means."""
    per_step = training.prompts_per_step
    return (
        f"{mode.value}: {training.prompts_per_device} prompts per device x {training.world_size} devices x "
        f"{training.gradient_accumulation_steps} accumulation = {per_step} prompts and "
        f"{training.completions_per_step} completions per optimizer step; "
        f"{prompts // per_step} steps per epoch"
    )


def _silent(*_: object) -> None:
    """Other processes than the first say nothing."""
