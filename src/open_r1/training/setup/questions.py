"""Load the questions of a training run: rows of all data sets, with a report of skipped and overlapping ones."""

import hashlib
from collections import Counter
from dataclasses import asdict
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets

from open_r1.checkpoints.folder import RUN_FILE
from open_r1.common.atomic_files import read_manifest
from open_r1.common.errors import UserError
from open_r1.data.loading import load_rows
from open_r1.data.overlap.exclusion import without_overlap
from open_r1.data.readers.hub_sets import commit_of
from open_r1.data.readers.image_columns import count_images
from open_r1.data.rows import Dropped
from open_r1.training.command_line.arguments import QuestionArguments
from open_r1.training.command_line.grpo_config import GRPOTrainingConfig
from open_r1.training.setup.prompt_check import PromptCheck, check_prompts, prompts_of
from open_r1.vocabulary.column_names import ColumnNames, parse_columns
from open_r1.vocabulary.modes import Mode


def load_training_rows(
    script: QuestionArguments,
    processor: Any,
    mode: Mode,
    device: torch.device | str = "cpu",
    is_training: bool = True,
) -> tuple[Dataset, dict[str, Any], list[int]]:
    """Rows for the trainer, with prompts made on the fly and undecoded images.

    Args:
        script: the flags.
        processor: of the checkpoint.
        mode: answer form of the prompt.
        device: of the numbers that processes exchange, which check a share of the rows each.
        is_training: false for the questions of evaluation during training.

    Returns:
        The rows, a report (counts, skipped rows with reasons, a log line), and the tokens of each prompt.

    Raises:
        UserError: if no row is usable, or a prompt is too long with `--overlong_prompts refuse`.
    """
    names = script.dataset_name if is_training else script.eval_dataset_name or script.dataset_name
    split = script.split_name(is_training)
    columns = parse_columns(script.columns)
    rows, dropped, sets = load_sets(names, script.image_root, split, columns)
    exclusion = None
    if is_training and script.exclude_overlap:
        rows, exclusion = without_overlap(rows, script.exclude_overlap, script.image_root, columns)
    checked = check_prompts(rows, processor, mode, script.max_prompt_length, device)
    if checked.too_long and script.overlong_prompts == "refuse":
        name, length = max(checked.too_long, key=lambda item: item[1])
        raise UserError(
            f"{len(checked.too_long)} of {len(rows)} prompts are longer than --max_prompt_length "
            f"{script.max_prompt_length} (row {name}: {length} tokens), and a prompt is never cut, because that would "
            "cut image tokens: raise the limit, lower --max_pixels, or use --overlong_prompts drop"
        )
    if not checked.usable:
        raise UserError(
            f"no question of the {split} split is usable: {len(checked.too_long)} of {len(rows)} prompts are longer "
            f"than --max_prompt_length {script.max_prompt_length} and {len(checked.unreadable)} images cannot be used"
            + (
                f" (first: {checked.unreadable[0][1]})"
                if checked.unreadable
                else "; raise the limit or lower --max_pixels"
            )
        )
    usable = rows.select(checked.usable) if len(checked.usable) < len(rows) else rows

    def add_prompt(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {**batch, "prompt": prompts_of(batch, mode)}

    ids = usable["id"][:]
    for data_set in sets:
        data_set["prompts"] = len(data_set.pop("ids").intersection(ids))
    answer_types = dict(Counter(usable["answer_type"][:]))
    report = _data_report(sets, ids, dropped, checked)
    report |= {"answer_types": answer_types, "most_images": checked.most_images}
    if exclusion is not None:
        report |= {"excluded": asdict(exclusion), "line": f"{report['line']}; {exclusion.line()}"}
    return usable.with_transform(add_prompt), report, checked.lengths


def load_evaluation_rows(
    script: QuestionArguments, training: Any, processor: Any, mode: Mode, training_rows: Dataset, report: dict[str, Any]
) -> Dataset | None:
    """The questions of evaluation during training; None without `--eval_strategy`.

    Args:
        script: the flags.
        training: training arguments; their evaluation batch may become smaller.
        processor: of the checkpoint.
        mode: answer form of the prompt.
        training_rows: rows of the training.
        report: gets an entry `evaluation` with the report of these questions and their overlap with the training.

    Raises:
        UserError: if there is no test split, or all its questions are training questions.
    """
    if training.eval_strategy == "no":
        if script.eval_dataset_name or script.max_eval_samples:
            raise UserError(
                "--eval_dataset_name and --max_eval_samples do nothing without --eval_strategy steps or epoch"
            )
        return None
    rows, about, _ = load_training_rows(script, processor, mode, training.device, is_training=False)
    training_ids = set(training_rows.with_format(None)["id"][:])
    shared = sum(name in training_ids for name in rows.with_format(None)["id"][:])
    if shared == len(rows):
        raise UserError(
            f"--eval_strategy {training.eval_strategy}: all {shared} questions for evaluation are also training "
            "questions, so results would be meaningless; name another data set with --eval_dataset_name"
        )
    count = min(script.max_eval_samples or len(rows), len(rows))
    if isinstance(training, GRPOTrainingConfig):
        count = training.filled_evaluation(count)
    line = f"evaluation during training: {count} of {len(rows)} questions of "
    line += ", ".join(data_set["path"] for data_set in about["sets"])
    about["line"] = line + (f"; {shared} of all are training questions too" if shared else "")
    report["evaluation"] = about | {"asked": count, "trained_on_too": shared}
    return rows if count == len(rows) else rows.shuffle(seed=training.seed).select(range(count))


def load_sets(
    paths: list[str], image_root: str | None, split: str = "train", columns: ColumnNames | None = None
) -> tuple[Dataset, list[Dropped], list[dict[str, Any]]]:
    """Join one split of several data sets; a question that is in two of them is kept once.

    Returns:
        The rows, the unusable rows, and for each data set its path, its commit if it is of the hub, manifest, ids, and
        whether all, some or none of its questions have an image.

    Raises:
        UserError: as `load_rows`.
    """
    datasets, dropped, sets = [], [], []
    earlier_ids: set[str] = set()
    for path in paths:
        rows, unusable = load_rows(path, split, image_root, columns)
        ids = rows["id"][:]
        fresh = [index for index, name in enumerate(ids) if name not in earlier_ids]
        dropped += unusable
        for name in earlier_ids.intersection(ids):
            dropped.append(Dropped(path, "repeated-question", f"the question {name} is in an earlier set already"))
        datasets.append(rows if len(fresh) == len(rows) else rows.select(fresh))
        with_images = sum(count.images > 0 for count in count_images(rows.data.column("images")))  # dropped rows too
        images = "none" if not with_images else "some" if with_images < len(rows.data) else "all"
        fresh_ids = {ids[index] for index in fresh}
        sets.append({"path": path, "pictures": images, "manifest": read_manifest(path), "ids": fresh_ids})
        if (commit := commit_of(path)) is not None:
            sets[-1]["commit"] = commit
        earlier_ids.update(ids)
    return concatenate_datasets(datasets) if len(datasets) > 1 else datasets[0], dropped, sets


def _data_report(
    sets: list[dict[str, Any]], ids: list[str], dropped: list[Dropped], checked: PromptCheck
) -> dict[str, Any]:
    kinds = {data_set["pictures"] for data_set in sets}
    images = kinds.pop() if len(kinds) == 1 else "some"
    skipped = [(len(dropped), "unusable"), (len(checked.too_long), "over the prompt limit")]
    skipped.append((len(checked.unreadable), "with an image that cannot be used"))
    details = [f"{count} {reason}" for count, reason in skipped if count]
    names = [f"{data_set['path']} ({data_set['prompts']})" if len(sets) > 1 else data_set["path"] for data_set in sets]
    line = f"data: {len(ids)} prompts from {', '.join(names)}, longest {checked.longest} tokens"
    return {
        "line": line + (f"; skipped: {', '.join(details)} (listed in {RUN_FILE})" if details else ""),
        # None for several data sets: no single path is what the run was trained on
        "path": sets[0]["path"] if len(sets) == 1 else None,
        "sets": sets,
        "pictures": images,
        "prompts": len(ids),
        "ids_sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
        "content_sha256": checked.content,
        "longest_prompt": checked.longest,
        "dropped": [str(row) for row in dropped],
        "too_long": checked.too_long,
        "unreadable": checked.unreadable,
        "manifest": sets[0]["manifest"] if len(sets) == 1 else None,
    }


def require_one_step(prompts: int, training: GRPOTrainingConfig) -> None:
    """Refuse a data set smaller than one generation batch, on which TRL would silently train zero steps."""
    batch = int(training.generation_batch_size or 0) // int(training.num_generations or 1)
    if prompts < batch:
        raise UserError(
            f"{prompts} prompts are fewer than the {batch} of one generation batch, so no step would be made; "
            "lower --per_device_train_batch_size or --gradient_accumulation_steps"
        )
