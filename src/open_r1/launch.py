"""One training run from flags to a saved checkpoint: load, check, train, save, and a run.json that tells the story."""

import hashlib
import importlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset, concatenate_datasets
from peft import LoraConfig
from safetensors import SafetensorError
from transformers import BitsAndBytesConfig
from trl import ModelConfig, get_peft_config

from open_r1.checkpoints import attention_or_fallback, load_model, load_processor, resolve_dtype, torch_dtype
from open_r1.config import GRPOTrainingConfig, QuestionArguments, VQAArguments, parse
from open_r1.curriculum import Curriculum, Order
from open_r1.difficulty import training_order
from open_r1.errors import EXIT_INTERRUPTED, UserError
from open_r1.files import claimed, read_manifest, write_json
from open_r1.foresight import Estimate, TryLongest
from open_r1.guards import stop_everywhere
from open_r1.model_card import conclude, open_repository
from open_r1.omnimedvqa import Dropped
from open_r1.prompt_limit import Checked, check_prompts
from open_r1.prompts import build_messages, question_text
from open_r1.provenance import commit, hardware, package_versions
from open_r1.resuming import (
    DONE,
    INTERRUPTED,
    RUN_FILE,
    RUNNING,
    checkpoint_to_continue,
    earlier_story,
    require_same_run,
)
from open_r1.rewards import rewards_for
from open_r1.runs import Mode, Split
from open_r1.saving import full_disk, step_of
from open_r1.tracking import CompletionsAsText, MetricsLog
from open_r1.trainable import VISION, freeze_vision_tower, lora_targets, trainable_table
from open_r1.trainer import SharedPrefixGRPOTrainer
from open_r1.vllm_extra import require_vllm
from open_r1.vqa_data import load_vqa, picture_key, row_pictures

# Seconds in which the data loader's processes of a run that was killed notice it and let go of its folder.
PATIENCE = 15.0


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

    attention, note = attention_or_fallback(model_config.attn_implementation)
    if note:
        say(note)
    model = load_model(
        checkpoint, dtype=torch_dtype(model_config.dtype), attn_implementation=attention, quantization=packed
    )
    if script.freeze_vision_tower:
        freeze_vision_tower(model)
    trainer = SharedPrefixGRPOTrainer(
        model=model,
        args=training,
        reward_funcs=list(rewards),
        train_dataset=dataset,
        eval_dataset=evaluation,
        processing_class=processor,
        peft_config=lora_config(model, script, model_config),
        open_pictures=row_pictures,
        picture_key=picture_key,
        shared_prefix=script.shared_prefix,
        verify=script.verify_shared_prefix,
        tokens_per_micro_batch=script.tokens_per_micro_batch,
        resample_dead_groups=script.resample_dead_groups,
        vision_cache_gib=script.vision_cache_gib,
        order=order,
    )
    look_ahead(trainer, script, training, lengths)
    trainer.add_callback(MetricsLog())
    trainer.add_callback(CompletionsAsText(trainer))
    say(plan_line(mode, training, len(dataset if order is None else order(0))))
    say(trainer.path_line())
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


def lora_config(model: Any, script: QuestionArguments, model_config: ModelConfig) -> LoraConfig | None:
    """The LoRA settings of the flags, on the layers that `--lora_on` or `--lora_target_modules` names.

    Raises:
        UserError: `--lora_on` without `--use_peft`, beside `--lora_target_modules`, or on a tower that is not there.
    """
    config = cast(LoraConfig | None, get_peft_config(model_config))
    if config is None:
        if script.lora_on:
            raise UserError(f"--lora_on {script.lora_on} does nothing without --use_peft; add it or leave the flag out")
        return None
    if model_config.lora_target_modules:
        if script.lora_on:
            raise UserError("--lora_on and --lora_target_modules both name the layers to adapt; leave one out")
    else:
        config.target_modules = lora_targets(model, script.lora_on or "language")
    return config


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


@contextmanager
def lost_process_in_one_line() -> Iterator[None]:
    """Turn the end of another process, which shows as a broken collective call, into a `UserError`."""
    try:
        yield
    except RuntimeError as error:
        broken = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if not (broken and torch.distributed.is_initialized()):
            raise
        raise UserError(
            "another process of this run has ended or does not answer; its own message says why. The last complete "
            "checkpoint is kept, and the same command continues from it"
        ) from error


@contextmanager
def full_disk_in_one_line(folder: Path) -> Iterator[None]:
    """Turn a disk that fills up while a checkpoint is written into a `UserError`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        problem = full_disk(error, folder)
        if problem is None:
            raise
        raise UserError(problem) from error


def load_training_rows(
    script: QuestionArguments, processor: Any, mode: Mode, split: Split = "train"
) -> tuple[Dataset, dict[str, Any], list[int]]:
    """Rows ready for the trainer, with the prompt written on the fly and the picture still undecoded.

    Args:
        script: the flags.
        processor: the model's own.
        mode: whose prompt is asked.
        split: `test` for the questions that are asked while training.

    Returns:
        The rows, what to report about them (counts, the rows left out with their reasons, one line for people), and
        the tokens of each row's prompt.

    Raises:
        UserError: if no row is left, or a prompt is too long and `--overlong_prompts refuse` was given.
    """
    names = script.eval_dataset_name or script.dataset_name if split == "test" else script.dataset_name
    rows, dropped, sets = load_sets(names, script.image_root, split)
    checked = check_prompts(rows, processor, mode, script.max_prompt_length)
    if checked.too_long and script.overlong_prompts == "refuse":
        name, length = max(checked.too_long, key=lambda item: item[1])
        raise UserError(
            f"{len(checked.too_long)} of {len(rows)} prompts are longer than --max_prompt_length "
            f"{script.max_prompt_length} (row {name}: {length} tokens); a prompt is never cut, because that cuts "
            "picture tokens: raise the limit, lower --max_pixels, or use --overlong_prompts drop"
        )
    if not checked.kept:
        raise UserError(
            f"no question of the {split} split is left: {len(checked.too_long)} of {len(rows)} prompts are longer than "
            f"--max_prompt_length {script.max_prompt_length} and {len(checked.unreadable)} pictures do not open"
            + (f" (first: {checked.unreadable[0][1]})" if checked.unreadable else "; raise it or lower --max_pixels")
        )
    kept = rows.select(checked.kept) if len(checked.kept) < len(rows) else rows

    def add_prompt(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        pictured = [image is not None for image in batch["image"]]
        prompts = [
            build_messages(problem, mode, has_image=has_image)
            for problem, has_image in zip(batch["problem"], pictured, strict=True)
        ]
        return {**batch, "prompt": prompts}

    ids = kept["id"][:]
    for each in sets:
        each["prompts"] = len(each.pop("ids").intersection(ids))
    return kept.with_transform(add_prompt), _data_report(sets, ids, dropped, checked), checked.lengths


def load_evaluation_rows(
    script: QuestionArguments, training: Any, processor: Any, mode: Mode, trained: Dataset, report: dict[str, Any]
) -> Dataset | None:
    """The questions that `--eval_strategy` asks while training; None without it.

    Args:
        script: the flags.
        training: whose `eval_strategy` and `seed` count; its batch may become smaller.
        processor: the model's own.
        mode: whose prompt is asked.
        trained: the rows that are trained on.
        report: gets `evaluation`: what was loaded, and how much of it is trained on.

    Raises:
        UserError: there is no test split, or all its questions are trained on.
    """
    if training.eval_strategy == "no":
        if script.eval_dataset_name or script.max_eval_samples:
            raise UserError(
                "--eval_dataset_name and --max_eval_samples do nothing without --eval_strategy steps or epoch"
            )
        return None
    rows, about, _ = load_training_rows(script, processor, mode, "test")
    known = set(trained.with_format(None)["id"][:])
    shared = sum(name in known for name in rows.with_format(None)["id"][:])
    if shared == len(rows):
        raise UserError(
            f"--eval_strategy {training.eval_strategy}: all {shared} questions to be asked while training are trained "
            "on, so nothing would be learnt from them; name another set with --eval_dataset_name"
        )
    count = min(script.max_eval_samples or len(rows), len(rows))
    if isinstance(training, GRPOTrainingConfig):
        count = training.filled_evaluation(count)
    line = f"asked while training: {count} of {len(rows)} questions of {', '.join(e['path'] for e in about['sets'])}"
    about["line"] = line + (f"; {shared} of all are trained on too" if shared else "")
    report["evaluation"] = about | {"asked": count, "trained_on_too": shared}
    return rows if count == len(rows) else rows.shuffle(seed=training.seed).select(range(count))


def load_sets(
    paths: list[str], image_root: str | None, split: Split = "train"
) -> tuple[Dataset, list[Dropped], list[dict[str, Any]]]:
    """The train (or test) splits of one or several data sets as one; a question that two sets hold counts once.

    Returns:
        The rows set after set, those that cannot be used, and for each set its path, manifest, ids, and whether all,
        some or none of its questions have a picture.

    Raises:
        UserError: as `load_vqa`.
    """
    parts, dropped, sets = [], [], []
    seen: set[str] = set()
    for path in paths:
        rows, unusable = load_vqa(path, split, image_root)
        ids = rows["id"][:]
        fresh = [place for place, name in enumerate(ids) if name not in seen]
        dropped += unusable
        for name in seen.intersection(ids):
            dropped.append(Dropped(path, "repeated-question", f"the question {name} is in an earlier set already"))
        parts.append(rows if len(fresh) == len(rows) else rows.select(fresh))
        without = rows.data.column("image").null_count  # rows that are dropped may count too
        pictures = "none" if without == rows.data.num_rows else "some" if without else "all"
        kept_ids = {ids[place] for place in fresh}
        sets.append({"path": path, "pictures": pictures, "manifest": read_manifest(path), "ids": kept_ids})
        seen.update(ids)
    return concatenate_datasets(parts) if len(parts) > 1 else parts[0], dropped, sets


def _data_report(
    sets: list[dict[str, Any]], ids: list[str], dropped: list[Dropped], checked: Checked
) -> dict[str, Any]:
    kinds = {each["pictures"] for each in sets}
    pictures = kinds.pop() if len(kinds) == 1 else "some"
    left_out = [(len(dropped), "unusable"), (len(checked.too_long), "over the prompt limit")]
    left_out.append((len(checked.unreadable), "with a picture that does not open"))
    details = [f"{count} {why}" for count, why in left_out if count]
    names = ", ".join(f"{each['path']} ({each['prompts']})" if len(sets) > 1 else each["path"] for each in sets)
    line = f"data: {len(ids)} prompts from {names}, longest {checked.longest} tokens"
    return {
        "line": line + (f"; left out: {', '.join(details)} ({RUN_FILE} names them)" if details else ""),
        # one path as before; of several none is what the run was trained on
        "path": sets[0]["path"] if len(sets) == 1 else None,
        "sets": sets,
        "pictures": pictures,
        "prompts": len(ids),
        "ids_sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
        "longest_prompt": checked.longest,
        "dropped": [str(row) for row in dropped],
        "too_long": checked.too_long,
        "unreadable": checked.unreadable,
        "manifest": sets[0]["manifest"] if len(sets) == 1 else None,
    }


def require_one_step(prompts: int, training: GRPOTrainingConfig) -> None:
    """Refuse a data set smaller than one generation batch: TRL would train zero steps without a word."""
    needed = int(training.generation_batch_size or 0) // int(training.num_generations or 1)
    if prompts < needed:
        raise UserError(
            f"{prompts} prompts are fewer than the {needed} of one generation batch, so not one step would be made; "
            "lower --per_device_train_batch_size or --gradient_accumulation_steps"
        )


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


@contextmanager
def own_folder(training: Any) -> Iterator[Path | None]:
    """Hold `--output_dir` for this run alone, and look where it goes on.

    Args:
        training: of this process; the first one looks and holds for all.

    Yields:
        The checkpoint to go on from; None for a new run.

    Raises:
        UserError: another run writes there, or the folder must not be written to or holds a run that cannot be
            continued.
    """
    found, problem = None, None
    with ExitStack() as held:
        if training.process_index == 0:
            folder = Path(training.output_dir or ".")
            try:
                held.enter_context(claimed(folder, PATIENCE))
                found = checkpoint_to_continue(folder, training.resume_from_checkpoint)
                open_repository(training)
            except UserError as error:
                problem = str(error)
        stop_everywhere(problem, training.device)
        yield broadcast_object_list([found])[0]


def run_training(trainer: Any, story: dict[str, Any], checkpoint: Path | None) -> int:
    """Train from the base or from a checkpoint, save, and keep run.json up to date.

    Args:
        trainer: `Durable`.
        story: what run.json says of the run.
        checkpoint: to go on from; None begins.

    Returns:
        The exit status: 0, or `EXIT_INTERRUPTED` after a signal.

    Raises:
        UserError: the checkpoint is of another run, the disk is full, or the numbers are not finite.
    """
    folder, main_process = Path(trainer.args.output_dir), trainer.accelerator.is_main_process
    problem = None
    if checkpoint is not None and main_process:
        earlier = earlier_story(checkpoint)
        try:
            require_same_run(earlier, story, checkpoint, trainer.accelerator.num_processes)
        except UserError as error:
            problem = str(error)
        begun = {"at_step": step_of(checkpoint), "time": _now()}
        story = story | {"started": earlier["started"], "continued": [*earlier.get("continued", []), begun]}
    stop_everywhere(problem, trainer.accelerator.device)

    def record(**more: Any) -> None:
        if main_process:
            write_json(folder / RUN_FILE, story | more)

    record(status=RUNNING)
    with full_disk_in_one_line(folder), lost_process_in_one_line():
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        if trainer.signals.stopped:
            record(status=INTERRUPTED, steps=trainer.state.global_step)
            if main_process:
                print(f"stopped by a signal after step {trainer.state.global_step}; the same command continues")
            return EXIT_INTERRUPTED
        trainer.save_model()
    if main_process:
        trainer.state.save_to_json(str(folder / "trainer_state.json"))
        print(f"saved: {folder}")
    ending = {"status": DONE, "finished": _now(), "steps": trainer.state.global_step}
    record(**ending)
    if main_process:
        conclude(trainer.args, story | ending)
    return 0


def plan_line(mode: Mode, training: GRPOTrainingConfig, prompts: int) -> str:
    """Both ways to count a step, so that nobody has to guess which one a flag means."""
    per_step = training.prompts_per_step
    return (
        f"{mode.value}: {training.prompts_per_device} prompts per device x {training.world_size} devices x "
        f"{training.gradient_accumulation_steps} accumulation = {per_step} prompts and "
        f"{training.completions_per_step} completions per optimizer step; "
        f"{prompts // per_step} steps per epoch"
    )


def run_story(
    mode: Mode,
    script: QuestionArguments,
    training: Any,
    model_config: ModelConfig,
    report: dict[str, Any],
) -> dict[str, Any]:
    """What run.json records about a run, enough to repeat it."""
    return {
        "method": "grpo",
        "mode": mode.value,
        "base_model": model_config.model_name_or_path,
        "command": " ".join(sys.argv),
        "prompt": question_text("{Question}", mode),
        "prompts_per_step": training.prompts_per_step,
        "completions_per_step": training.completions_per_step,
        "data": report,
        "script_arguments": asdict(script),
        "training_arguments": training.to_sanitized_dict(),
        "model_arguments": asdict(model_config),
        "packages": package_versions(),
        "commit": commit(),
        "hardware": hardware(),
        "started": _now(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _silent(*_: object) -> None:
    """Other processes than the first say nothing."""
