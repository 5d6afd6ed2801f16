"""What an evaluation run consists of, decided before the model is loaded: mode, questions and manifest.

The manifest is the first line of a result file. `result_writer.VOLATILE` lists the entries that only inform; a run in
which any other entry differs does not continue the file.
"""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from open_r1.checkpoints.folder import fingerprint, run_record, run_record_folder
from open_r1.checkpoints.loading import attention_or_fallback, resolve_dtype
from open_r1.checkpoints.processors import counts_patches, processor_fingerprint, processor_source
from open_r1.common.errors import UserError
from open_r1.common.provenance import commit, hardware, package_versions
from open_r1.data.loading import data_fingerprint
from open_r1.data.readers.hub_sets import commit_of
from open_r1.evaluation.answering.encoder import Encoder
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.evaluation.scoring.train_overlap import TrainingSet
from open_r1.grading.grader import GRADER_VERSION
from open_r1.vocabulary.labels import Modality, Task, parse_label, refuse_other_family
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import prompt_name, recorded_prompt
from open_r1.vocabulary.releases import HUB_REPOSITORY, released


def choose_mode(flag: str | None, prompt: str | None, name: str, folder: Path) -> tuple[Mode, str]:
    """The mode to evaluate in, and where it comes from.

    In this order: `--mode`, the mode whose training prompt `--prompt` names, run.json of our own training, the table of
    released checkpoints (by hub name only, never by a word in a path), no-think.
    """
    if flag is not None:
        return Mode(flag), "from --mode"
    if prompt is not None:
        modes = {prompt_name(mode): mode for mode in Mode}
        return modes.get(prompt, Mode.THINK), f"of the prompt {prompt}"
    recorded = (run_record(folder) or {}).get("mode")
    if recorded in list(Mode):
        return Mode(str(recorded)), "from its run.json"
    repository, _, subfolder = name.partition(":")
    if repository == HUB_REPOSITORY:
        try:
            return released(subfolder).mode, "as released"
        except UserError:
            pass
    return Mode.NOTHINK, "the default: the checkpoint does not say how it was trained; --mode sets it"


def refuse_mixed_families(name: str, folder: Path, data: Path, force: bool = False) -> str | None:
    """Refuse to score a checkpoint on another split family than it was trained on, if both families are known.

    Returns:
        The reason for refusing, which `force` overrides; None if there is none.

    Raises:
        UserError: see `labels.refuse_other_family`.
    """
    trained, tested = trained_label(name, folder), _label(data.name)
    if trained is None or tested is None:
        return None
    try:
        refuse_other_family(trained, tested)
    except UserError as error:
        if not force:
            raise UserError(f"{error}. --force evaluates anyway, and every report will say so") from None
        return str(error)
    return None


def training_method(name: str, folder: Path) -> str:
    """How a checkpoint was trained: as run.json says, GRPO for a released checkpoint, zero-shot for any other."""
    record = run_record(folder)
    if record is not None:
        return str(record.get("method") or "grpo")  # early run.json files have no method
    return "grpo" if name.partition(":")[0] == HUB_REPOSITORY else "zero-shot"


def run_folder(folder: Path) -> str | None:
    """The folder of the training run that made a checkpoint, which holds run.json; None if there is none."""
    record_folder = run_record_folder(folder)
    return None if record_folder is None else str(record_folder)


def trained_label(name: str, folder: Path) -> Modality | Task | None:
    """What a checkpoint was trained on, by its released name or its run.json; None if neither says."""
    repository, _, subfolder = name.partition(":")
    if repository == HUB_REPOSITORY:
        try:
            return released(subfolder).label
        except UserError:
            return None
    path = ((run_record(folder) or {}).get("data") or {}).get("path")
    return _label(Path(path).name) if isinstance(path, str) else None


def _label(name: str) -> Modality | Task | None:
    try:
        return parse_label(name)
    except UserError:
        return None


def choose_rows(ids: list[str], limit: int | None) -> list[int]:
    """Indices of the questions to ask: all, or `limit` of them drawn by the hash of their ids.

    The draw depends on the ids alone: it is the same on every machine and does not favour the top of the file.
    """
    indices = range(len(ids))
    if limit is None or limit >= len(ids):
        return list(indices)
    return sorted(sorted(indices, key=lambda index: hashlib.sha256(ids[index].encode()).digest())[:limit])


def build_manifest(
    settings: InferenceSettings,
    folder: Path,
    encoder: Encoder,
    data: Any,
    rows: int,
    training: TrainingSet | None = None,
    forced: bool = False,
) -> dict[str, Any]:
    """Everything that can change an answer, and the hardware and packages of the run.

    Args:
        settings: the flags.
        folder: the checkpoint's folder.
        encoder: turns questions into prompts.
        data: all rows of the data set.
        rows: how many questions are asked.
        training: the training set that test questions are compared with.
        forced: whether `--force` overrode a refusal.
    """
    size = encoder.processor.image_processor.size if counts_patches(encoder.processor) else {}
    name, prompt = recorded_prompt(encoder.mode, encoder.prompt, data["answer_type"][:])
    return _rare_entries(settings) | {
        "checkpoint": settings.model_path,
        "checkpoint_sha256": fingerprint(folder),
        "processor_sha256": processor_fingerprint(processor_source(folder, settings.processor)),
        "mode": encoder.mode.value,
        "prompt_name": name,
        "prompt": prompt,
        "min_pixels": size.get("shortest_edge"),
        "max_pixels": size.get("longest_edge"),
        "data": settings.prompt_path,
        "image_root": settings.image_root,
        "split": settings.split,
        "data_sha256": data_fingerprint(data["id"]),
        "limit": settings.limit,
        "rows": rows,
        "method": training_method(settings.model_path, folder),
        "trained_on": trained_label(settings.model_path, folder),
        "tested_on": _label(Path(settings.prompt_path).name),
        "train_data": training and training.path,
        "train_data_sha256": training and data_fingerprint(training.ids),
        "train_content_sha256": training and training.content,
        "run_dir": run_folder(folder),
        "forced": forced,
        "image": settings.image,
        "options": settings.options,
        "samples": settings.samples,
        "temperature": settings.sampling.temperature,
        "seed_used": settings.seed if settings.draws else None,
        "backend": settings.backend,
        "decoding": "greedy" if settings.sampling.is_greedy else "sampled",
        "max_new_tokens": settings.max_new_tokens,
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "dtype": str(resolve_dtype(settings.dtype, settings.where)).removeprefix("torch."),
        "attention": attention_or_fallback(settings.attn_implementation, settings.where)[0],
        "grader_version": GRADER_VERSION,
        "device": settings.where,
        "hardware": hardware(),
        "packages": package_versions(),
        "commit": commit(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _rare_entries(settings: InferenceSettings) -> dict[str, Any]:
    """Entries that most manifests lack: the commit of a data set of the hub, names of its columns, other resizing,
    kept probabilities of letters."""
    resize = None if settings.resize == "processor" else settings.resize
    entries: dict[str, Any] = {"data_commit": commit_of(settings.prompt_path), "columns": settings.columns}
    entries |= {"resize": resize, "letter_probs": settings.letter_probs or None}
    return {name: value for name, value in entries.items() if value is not None}
