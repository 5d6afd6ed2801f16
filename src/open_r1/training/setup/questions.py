"""The questions of a training run: the sets that the flags name as rows, with what was left out and what overlaps."""

import hashlib
from typing import Any

from datasets import Dataset, concatenate_datasets

from open_r1.common.atomic_files import read_manifest
from open_r1.common.errors import UserError
from open_r1.data.loading import load_rows
from open_r1.data.rows import Dropped
from open_r1.training.command_line.arguments import QuestionArguments
from open_r1.training.command_line.grpo_config import GRPOTrainingConfig
from open_r1.training.recovery.resume import RUN_FILE
from open_r1.training.setup.prompt_check import Checked, check_prompts
from open_r1.vocabulary.labels import Split
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import build_messages


def load_training_rows(
    script: QuestionArguments, processor: Any, mode: Mode, split: Split = "train"
) -> tuple[Dataset, dict[str, Any], list[int]]:
    """Rows ready for the trainer, with the prompt written on the fly and the image still undecoded.

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
            "image tokens: raise the limit, lower --max_pixels, or use --overlong_prompts drop"
        )
    if not checked.kept:
        raise UserError(
            f"no question of the {split} split is left: {len(checked.too_long)} of {len(rows)} prompts are longer than "
            f"--max_prompt_length {script.max_prompt_length} and {len(checked.unreadable)} images do not open or fit"
            + (f" (first: {checked.unreadable[0][1]})" if checked.unreadable else "; raise it or lower --max_pixels")
        )
    kept = rows.select(checked.kept) if len(checked.kept) < len(rows) else rows

    def add_prompt(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        with_images = [image is not None for image in batch["image"]]
        prompts = [
            build_messages(problem, mode, has_image=has_image)
            for problem, has_image in zip(batch["problem"], with_images, strict=True)
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
        some or none of its questions have an image.

    Raises:
        UserError: as `load_rows`.
    """
    parts, dropped, sets = [], [], []
    seen: set[str] = set()
    for path in paths:
        rows, unusable = load_rows(path, split, image_root)
        ids = rows["id"][:]
        fresh = [place for place, name in enumerate(ids) if name not in seen]
        dropped += unusable
        for name in seen.intersection(ids):
            dropped.append(Dropped(path, "repeated-question", f"the question {name} is in an earlier set already"))
        parts.append(rows if len(fresh) == len(rows) else rows.select(fresh))
        without = rows.data.column("image").null_count  # rows that are dropped may count too
        images = "none" if without == rows.data.num_rows else "some" if without else "all"
        kept_ids = {ids[place] for place in fresh}
        sets.append({"path": path, "pictures": images, "manifest": read_manifest(path), "ids": kept_ids})
        seen.update(ids)
    return concatenate_datasets(parts) if len(parts) > 1 else parts[0], dropped, sets


def _data_report(
    sets: list[dict[str, Any]], ids: list[str], dropped: list[Dropped], checked: Checked
) -> dict[str, Any]:
    kinds = {each["pictures"] for each in sets}
    images = kinds.pop() if len(kinds) == 1 else "some"
    left_out = [(len(dropped), "unusable"), (len(checked.too_long), "over the prompt limit")]
    left_out.append((len(checked.unreadable), "with an image that does not open or is not taken"))
    details = [f"{count} {why}" for count, why in left_out if count]
    names = ", ".join(f"{each['path']} ({each['prompts']})" if len(sets) > 1 else each["path"] for each in sets)
    line = f"data: {len(ids)} prompts from {names}, longest {checked.longest} tokens"
    return {
        "line": line + (f"; left out: {', '.join(details)} ({RUN_FILE} names them)" if details else ""),
        # one path as before; of several none is what the run was trained on
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
    """Refuse a data set smaller than one generation batch: TRL would train zero steps without a word."""
    needed = int(training.generation_batch_size or 0) // int(training.num_generations or 1)
    if prompts < needed:
        raise UserError(
            f"{prompts} prompts are fewer than the {needed} of one generation batch, so not one step would be made; "
            "lower --per_device_train_batch_size or --gradient_accumulation_steps"
        )
