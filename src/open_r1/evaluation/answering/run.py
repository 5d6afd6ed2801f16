"""One evaluation run: a checkpoint answers every question of a data set, and each result is written to disk at once.

The same command run again continues the result file, whatever stopped the earlier run, and with any number of
processes. A command with another checkpoint, prompt or data set is refused, so that results are never mixed.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from open_r1.checkpoints.folder import name_base, read_family
from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.names import model_source
from open_r1.checkpoints.processors import load_processor
from open_r1.checkpoints.qwen_resizing import require_qwen_sizes
from open_r1.common.atomic_files import disk_errors, write_atomically
from open_r1.common.errors import UserError
from open_r1.data.loading import data_fingerprint, load_rows, summary
from open_r1.data.row_images import Undecoded
from open_r1.evaluation.answering.backends.generator import Generator
from open_r1.evaluation.answering.encoder import Encoder
from open_r1.evaluation.answering.manifest import build_manifest, choose_mode, choose_rows, refuse_mixed_families
from open_r1.evaluation.answering.perturbations import Donors, View, count_fixed
from open_r1.evaluation.answering.processes import Launch, Refused, connected_processes
from open_r1.evaluation.answering.questions import Answer, answer_views, question_batches
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import Result, read_results
from open_r1.evaluation.scoring.shown_content import require_same_content, row_contents
from open_r1.evaluation.scoring.summary_lines import summary_lines
from open_r1.evaluation.scoring.train_overlap import TrainingSet, find_training_set
from open_r1.modeling.gpu_kernels import choose_attention_kernels
from open_r1.vocabulary.column_names import parse_columns

INTERRUPTED = 130  # exit status after Ctrl-C, as shells count it


def infer(settings: InferenceSettings) -> int:
    """Answer the questions that have no result in the result file yet, and print the accuracy.

    Under torchrun the processes share the questions; the first one prints.

    Returns:
        The exit status: 0; 1 with `strict` if a question could not be asked; 130 after an interrupt.

    Raises:
        UserError: flags, checkpoint or data are not usable, the result file is of another run, or the disk is full.
    """
    with connected_processes() as launch:
        return _infer([settings], launch, LoadedModel())


class LoadedModel:
    """The model loaded last. The next data set, or view of it, uses it too if its settings are otherwise the same."""

    def __init__(self) -> None:
        self._settings: InferenceSettings | None = None
        self._answer: Answer | None = None

    def backend(self, settings: InferenceSettings, job: "_Job", device: str) -> Answer:
        """The model of these settings, loaded only if it is not the one in memory."""
        model_settings = replace(settings, prompt_path="", output_path="", image="shown", options="as_given")
        if self._answer is None or self._settings != model_settings:
            self._answer = None  # free the old model first: both may not fit
            self._settings, self._answer = model_settings, _load_backend(settings, job, device)
        return self._answer


def infer_all(runs: Sequence[InferenceSettings]) -> int:
    """`infer` for several checkpoints, data sets and views in turn; a run that fails does not stop the next.

    Runs that follow each other and differ in the order of the options alone are asked together.

    Returns:
        The highest exit status; 2 if a run failed.

    Raises:
        UserError: as `infer`, if there is only one run.
    """
    if len(runs) == 1:
        return infer(runs[0])
    worst, model = 0, LoadedModel()
    with connected_processes() as launch:
        for together in _asked_together(runs):
            for settings in together:
                launch.say(f"== {settings.model_path} on {settings.prompt_path} -> {settings.output_path}")
            try:
                status = _infer(together, launch, model, _is_a_view(together[0], runs))
            except UserError as error:
                launch.say(f"error: {error}")
                status = 2
            except Refused:
                status = 2
            if status == INTERRUPTED:
                return status
            worst = max(worst, status)
        files = sorted({os.path.join(os.path.dirname(run.output_path), "*.jsonl") for run in runs})
        if launch.is_first:
            print(f"one report of all runs: python eval/report.py {' '.join(files)} --output_dir REPORT")
    return worst


def _asked_together(runs: Sequence[InferenceSettings]) -> list[list[InferenceSettings]]:
    """Runs that follow each other and differ in the order of the options alone: their images are encoded once."""
    groups: list[list[InferenceSettings]] = []
    for settings in runs:
        first = groups[-1][0] if groups else None
        if first is not None and first == replace(settings, options=first.options, output_path=first.output_path):
            groups[-1].append(settings)
        else:
            groups.append([settings])
    return groups


@dataclass(frozen=True)
class _Job:
    """Everything about a run except the model."""

    folder: Path  # of the checkpoint
    encoder: Encoder
    questions: Any  # rows to ask
    dropped: int
    training: TrainingSet | None
    manifest: dict[str, Any]
    mode: str


def _is_a_view(settings: InferenceSettings, runs: Sequence[InferenceSettings]) -> bool:
    """Whether the images are changed of questions that the same command asks as usual."""
    usual = replace(settings, image="shown", output_path="")
    return settings.image != "shown" and any(replace(run, output_path="") == usual for run in runs)


def _infer(together: Sequence[InferenceSettings], launch: Launch, model: LoadedModel, only_images: bool = False) -> int:
    """Ask the questions of one run, or of runs that differ in the order of the options alone.

    With `only_images` nothing is asked where no question has an image.
    """
    jobs = [launch.run_in_all(lambda settings=settings: _prepare(settings, launch)) for settings in together]
    if only_images and not _most_images(jobs[0].questions):
        launch.say(f"no question has an image, so --image {together[0].image} would change nothing: not asked")
        return 0
    with ExitStack() as stack:
        writers, asked = [], []
        for number, (settings, job) in enumerate(zip(together, jobs, strict=True)):
            content_by_id = launch.run_in_first(lambda job=job: row_contents(job.questions, job.encoder.content))
            contents = data_fingerprint(f"{name} {content}" for name, content in content_by_id.items())
            job.manifest["content_sha256"] = contents
            writer = stack.enter_context(open_results(Path(settings.output_path), job.manifest, launch, content_by_id))
            names = enumerate(job.questions["id"])
            unanswered = [(number, index) for index, name in names if name not in writer.written_ids]
            launch.say(f"mode: {job.mode}; {len(unanswered)} of {len(job.questions)} questions to ask")
            asked += unanswered
            writers.append(writer)
        finished = not asked or _answer_share(together[0], jobs, asked, writers, launch, model)
        finished = all(launch.gather(finished))
    failed = 0
    for settings in together:
        path = Path(settings.output_path)
        failed += launch.run_in_first(lambda path=path: report(path, read_results(path).results, launch.say))
    if not finished:
        return INTERRUPTED
    return 1 if together[0].strict and (failed or jobs[0].dropped) else 0


def _prepare(settings: InferenceSettings, launch: Launch) -> _Job:
    device = launch.device(settings.where)
    names = parse_columns(settings.columns)
    rows, dropped = load_rows(settings.prompt_path, settings.split, settings.image_root, names)
    if dropped:
        launch.say(summary(dropped))
    folder = model_source(settings.model_path)
    if settings.base is not None:
        name_base(folder, settings.base)
    overlap = refuse_mixed_families(settings.model_path, folder, Path(settings.prompt_path), settings.force)
    if overlap:
        launch.say(f"forced: {overlap}")
    mode, mode_origin = choose_mode(settings.mode, settings.prompt, settings.model_path, folder)
    processor = load_processor(folder, settings.min_pixels, settings.max_pixels, settings.processor)
    train = settings.train_path, folder, settings.prompt_path, settings.image_root, names, settings.train_split
    training, message = find_training_set(*train)
    launch.say(message)
    view = View(settings.image, settings.options, settings.seed, _donors(settings, rows))
    gpu, by_qwen = device if device.startswith("cuda") else None, settings.resize == "qwen_vl_utils"
    vision = read_family(folder).has_vision
    if by_qwen and vision:
        require_qwen_sizes(processor.image_processor)
    encoder = _encoder_class(settings)(processor, mode, settings.prompt, vision, view, gpu, by_qwen and vision)
    questions = rows.select(choose_rows(rows["id"], settings.limit))
    manifest = build_manifest(settings, folder, encoder, rows, len(questions), training, bool(overlap))
    counts = count_fixed(view, questions.select_columns(["id", "problem", "answer_type"]))
    if counts:
        launch.say(
            f"options shuffled, except: in {counts['options_some_fixed']} of {len(questions)} questions options like "
            f"'none of these' keep their place; {counts['options_all_fixed']} questions keep the whole order, because "
            "'both A and B' would change its meaning"
        )
    manifest |= counts
    return _Job(folder, encoder, questions, len(dropped), training, manifest, f"{mode} ({mode_origin})")


def _encoder_class(settings: InferenceSettings) -> type[Encoder]:
    if settings.backend != "vllm":
        return Encoder
    from open_r1.evaluation.answering.backends.vllm_backend import VllmEncoder, require_backend

    require_backend()
    return VllmEncoder


def _donors(settings: InferenceSettings, rows: Any) -> Mapping[str, Sequence[Undecoded]]:
    return Donors(rows, settings.seed) if settings.image == "shuffled" else {}


# ------------------------------------------------------------------------------------------------ the result file


@contextmanager
def open_results(
    path: Path, manifest: Mapping[str, Any], launch: Launch, content_by_id: Mapping[str, str]
) -> Iterator[ResultWriter]:
    """Begin or continue the result file, and lock it for the processes of this launch.

    The first process repairs the file and removes the questions that could not be asked, so that they are tried again.
    It takes an exclusive lock for that, which it gets only once no process of an earlier launch is left, orphans of a
    killed launch included. While writing, every process holds a shared lock.

    Raises:
        UserError: another launch is writing the file, it belongs to another run, or it cannot be written.
    """
    with ExitStack() as stack:
        written_ids = launch.run_in_first(lambda: _repair(path, manifest, content_by_id, launch.say))
        launch.run_in_all(lambda: stack.enter_context(_locked(path, fcntl.LOCK_SH)))
        yield stack.enter_context(ResultWriter(path, manifest, written_ids))


def _repair(
    path: Path, manifest: Mapping[str, Any], content_by_id: Mapping[str, str], say: Callable[[str], object]
) -> list[str]:
    """Make the file ready to append to; returns the ids of the questions that have a result."""
    if path.is_dir():
        raise UserError(f"--output_path {path} is a folder; name a file in it")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path, fcntl.LOCK_EX):
        ResultWriter(path, manifest).close()  # refuses files of another run, repairs torn lines
        require_same_content(path, content_by_id, manifest["content_sha256"], say)
        _remove_failed(path)
        return [result.id for result in read_results(path).results]


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    with disk_errors(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"another process is writing {path}; wait for it or choose another file") from None
    finally:
        os.close(handle)


def _remove_failed(path: Path) -> None:
    """Remove the lines of questions that could not be asked: their images may be usable by now."""
    lines = path.read_bytes().splitlines(keepends=True)
    valid = [line for number, line in enumerate(lines) if number == 0 or json.loads(line).get("error") is None]
    if len(valid) < len(lines):
        write_atomically(path, b"".join(valid))


# ------------------------------------------------------------------------------------------------------ answering


def _answer_share(
    settings: InferenceSettings,
    jobs: Sequence[_Job],
    asked: Sequence[tuple[int, int]],
    writers: Sequence[ResultWriter],
    launch: Launch,
    model: LoadedModel,
) -> bool:
    """Answer questions batch by batch until none is left, and write each batch at once; False if the user interrupted.

    Each process takes the next batch, the one with the longest problems, whenever it is ready for another: the batches
    are the same whoever answers them, and what a slow process has not begun others do.

    Args:
        settings: of the first job.
        jobs: they differ in their view.
        asked: the number of the job and the index of the question.
        writers: of each job.
        launch: this process.
        model: the model, if it is loaded.
    """
    device = launch.device(settings.where)
    rows, job_of = jobs[0].questions.select([index for _, index in asked]), [number for number, _ in asked]
    answer = launch.run_in_all(lambda: model.backend(settings, jobs[0], device))
    already_written = sum(len(writer.written_ids) for writer in writers)
    bar = tqdm(
        total=already_written + len(rows),
        initial=already_written,
        unit=" questions",
        dynamic_ncols=True,
        disable=not launch.is_first,
    )
    views = [jobs[number].encoder.view for number in job_of]
    batches = question_batches(rows, _batch_size(settings.questions_at_once, len(rows), launch.size))
    claimed, answered, ahead = launch.claim(batches), launch.counter(), 2 if launch.size == 1 else 1
    try:
        with bar:
            for results in answer_views(answer, jobs[0].encoder, rows, views, claimed, jobs[0].training, ahead):
                for place, result in results:
                    _write(writers[job_of[place]], result)
                bar.update(already_written + answered(len(results)) - bar.n)
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(
            f"a batch of {settings.batch_size} does not fit on {device}; all results so far are saved: "
            "run again with a smaller --batch_size"
        ) from error
    except KeyboardInterrupt:
        written = sum(len(writer.written_ids) for writer in writers)
        launch.say(f"interrupted; {written} results are saved. The same command continues")
        return False
    return True


def _batch_size(most: int, count: int, processes: int) -> int:
    """Questions of a batch such that all processes answer as many batches, at least two where there are several."""
    if processes == 1:
        return most
    rounds = max(2, -(-count // (most * processes)))
    return -(-count // (rounds * processes))


def _load_backend(settings: InferenceSettings, job: _Job, device: str) -> Answer:
    if settings.backend == "vllm":
        from open_r1.evaluation.answering.backends.vllm_backend import VllmGenerator

        return VllmGenerator(settings, job.folder, job.encoder, _most_images(job.questions))
    choose_attention_kernels()
    torch.manual_seed(settings.seed)  # for models that draw from it; our own sampling does not
    model = load_model(job.folder, settings.dtype, settings.attn_implementation, device)
    return Generator(model, job.encoder.tokenizer, settings.max_new_tokens, settings.sampling, settings.letter_probs)


def _most_images(rows: Any) -> int:
    """Images of the question with the most."""
    batches = rows.select_columns(["images"]).iter(batch_size=64)
    return max(len(images) for batch in batches for images in batch["images"])


def _write(writer: ResultWriter, result: Result) -> None:
    try:
        writer.write(result)
    except UserError as error:
        raise UserError(
            f"{error}. The {len(writer.written_ids)} results written so far are saved: the same command continues"
        ) from error


# ------------------------------------------------------------------------------------------------------ the result


def report(path: Path, results: Sequence[Result], say: Callable[[str], None]) -> int:
    """Print accuracy with its standard error; return how many questions could not be asked."""
    graded = [result for result in results if result.outcome is not None]
    failed = [result for result in results if result.outcome is None]
    if failed:
        say(f"{len(failed)} questions could not be asked; the first: {failed[0].id}: {failed[0].error}")
    if failed and not graded:
        raise UserError(
            f"not one of {len(results)} questions could be asked: are the images in the right folder (--image_root)?"
        )
    if graded:
        print("\n".join(summary_lines(graded, len(failed))))
        print(f"tables and heatmap: python eval/report.py {path} --output_dir {path.with_suffix('.report')}")
    return len(failed)
