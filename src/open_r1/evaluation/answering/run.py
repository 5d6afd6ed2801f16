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
from open_r1.data.row_images import Undecoded, image_key, key_of
from open_r1.evaluation.answering.backends.generator import Completion, Generator
from open_r1.evaluation.answering.batches import batches_by_length, group_indices, prefetch
from open_r1.evaluation.answering.encoder import Encoded, Encoder, Row
from open_r1.evaluation.answering.manifest import build_manifest, choose_mode, choose_rows, refuse_mixed_families
from open_r1.evaluation.answering.perturbations import Donors, ShownProblem, View, count_fixed
from open_r1.evaluation.answering.processes import Launch, Refused, connected_processes
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import Result, Sample, failed_result, read_results, voted_result
from open_r1.evaluation.scoring.shown_content import require_same_content, row_contents
from open_r1.evaluation.scoring.summary_lines import summary_lines
from open_r1.evaluation.scoring.train_overlap import TrainingSet, find_training_set
from open_r1.grading.expected import Expected, grade_answer
from open_r1.grading.problems import options_in, solution_letter
from open_r1.modeling.gpu_kernels import choose_attention_kernels
from open_r1.vocabulary.answer_types import AnswerType
from open_r1.vocabulary.column_names import parse_columns

INTERRUPTED = 130  # exit status after Ctrl-C, as shells count it

Answer = Callable[[Encoded], list[list[Completion]]]
"""A backend: the completions of each prompt of a batch."""


def infer(settings: InferenceSettings) -> int:
    """Answer the questions that have no result in the result file yet, and print the accuracy.

    Under torchrun the processes share the questions; the first one prints.

    Returns:
        The exit status: 0; 1 with `strict` if a question could not be asked; 130 after an interrupt.

    Raises:
        UserError: flags, checkpoint or data are not usable, the result file is of another run, or the disk is full.
    """
    with connected_processes() as launch:
        return _infer(settings, launch, LoadedModel())


class LoadedModel:
    """The model loaded last. The next data set uses it too if its settings are otherwise the same."""

    def __init__(self) -> None:
        self._settings: InferenceSettings | None = None
        self._answer: Answer | None = None

    def backend(self, settings: InferenceSettings, job: "_Job", device: str) -> Answer:
        """The model of these settings, loaded only if it is not the one in memory."""
        model_settings = replace(settings, prompt_path="", output_path="")
        if self._answer is None or self._settings != model_settings:
            self._answer = None  # free the old model first: both may not fit
            self._settings, self._answer = model_settings, _load_backend(settings, job, device)
        return self._answer


def infer_all(runs: Sequence[InferenceSettings]) -> int:
    """`infer` for several checkpoints and data sets in turn; a run that fails does not stop the next.

    Returns:
        The highest exit status; 2 if a run failed.

    Raises:
        UserError: as `infer`, if there is only one run.
    """
    if len(runs) == 1:
        return infer(runs[0])
    worst, model = 0, LoadedModel()
    with connected_processes() as launch:
        for settings in runs:
            launch.say(f"== {settings.model_path} on {settings.prompt_path} -> {settings.output_path}")
            try:
                status = _infer(settings, launch, model)
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


def _infer(settings: InferenceSettings, launch: Launch, model: LoadedModel) -> int:
    job = launch.run_in_all(lambda: _prepare(settings, launch))
    output = Path(settings.output_path)
    content_by_id = launch.run_in_first(lambda: row_contents(job.questions, job.encoder.content))
    job.manifest["content_sha256"] = data_fingerprint(f"{name} {content}" for name, content in content_by_id.items())
    with open_results(output, job.manifest, launch, content_by_id) as writer:
        indices = [index for index, name in enumerate(job.questions["id"]) if name not in writer.written_ids]
        unanswered = job.questions.select(indices)
        launch.say(f"mode: {job.mode}; {len(unanswered)} of {len(job.questions)} questions to ask")
        finished = not unanswered or _answer_share(settings, job, unanswered, writer, launch, model)
        finished = all(launch.gather(finished))
    failed = launch.run_in_first(lambda: report(output, read_results(output).results, launch.say))
    if not finished:
        return INTERRUPTED
    return 1 if settings.strict and (failed or job.dropped) else 0


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
    settings: InferenceSettings, job: _Job, unanswered: Any, writer: ResultWriter, launch: Launch, model: LoadedModel
) -> bool:
    """Answer this process's share of the questions and write each batch at once; False if the user interrupted."""
    device = launch.device(settings.where)
    rows = unanswered.select(launch.share(group_indices(_image_ids(unanswered))))
    answer = launch.run_in_all(lambda: model.backend(settings, job, device))
    already_written = len(writer.written_ids) if launch.size == 1 else 0
    label = None if launch.size == 1 else f"process 1 of {launch.size}"
    bar = tqdm(
        total=already_written + len(rows),
        initial=already_written,
        unit=" questions",
        desc=label,
        dynamic_ncols=True,
        disable=not launch.is_first,
    )
    try:
        with bar:
            for results in answer_rows(answer, job.encoder, rows, settings.questions_at_once, job.training):
                _write(writer, results)
                bar.update(len(results))
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(
            f"a batch of {settings.batch_size} does not fit on {device}; all results so far are saved: "
            "run again with a smaller --batch_size"
        ) from error
    except KeyboardInterrupt:
        launch.say(f"interrupted; {len(writer.written_ids)} results are saved. The same command continues")
        return False
    return True


def _load_backend(settings: InferenceSettings, job: _Job, device: str) -> Answer:
    if settings.backend == "vllm":
        from open_r1.evaluation.answering.backends.vllm_backend import VllmGenerator

        return VllmGenerator(settings, job.folder, job.encoder, _most_images(job.questions))
    choose_attention_kernels()
    torch.manual_seed(settings.seed)  # for models that draw from it; our own sampling does not
    model = load_model(job.folder, settings.dtype, settings.attn_implementation, device)
    return Generator(model, job.encoder.tokenizer, settings.max_new_tokens, settings.sampling)


def _most_images(rows: Any) -> int:
    """Images of the question with the most."""
    batches = rows.select_columns(["images"]).iter(batch_size=64)
    return max(len(images) for batch in batches for images in batch["images"])


def _image_ids(rows: Any) -> list[str]:
    """For each row an identifier of its images, with which questions about the same images are put into one batch.

    The stored paths, which cost nothing to read; without a path, a hash of the image's bytes.
    """
    image_ids = []
    for batch in rows.select_columns(["images", "id"]).iter(batch_size=64):
        for images, name in zip(batch["images"], batch["id"], strict=True):
            image_ids.append("\n".join(image["path"] or key_of(image) for image in images) or name)
    return image_ids


def _write(writer: ResultWriter, results: Sequence[Result]) -> None:
    try:
        for result in results:
            writer.write(result)
    except UserError as error:
        raise UserError(
            f"{error}. The {len(writer.written_ids)} results written so far are saved: the same command continues"
        ) from error


def answer_rows(
    answer: Answer, encoder: Encoder, rows: Any, batch_size: int, training: TrainingSet | None = None
) -> Iterator[list[Result]]:
    """Yield the results of a data set batch by batch; a row whose image does not open gets an error."""
    lengths = [len(problem) for problem in rows["problem"]]
    batches = batches_by_length(lengths, batch_size, _image_ids(rows))
    for encoded in prefetch(lambda indices: encoder(list(rows.select(indices))), batches):
        groups = answer(encoded) if encoded.rows else []
        answered = [
            _grade_row(row, problem, completions, training, encoder.content(row))
            for row, problem, completions in zip(encoded.rows, encoded.problems, groups, strict=True)
        ]
        failed = [failed_result(row, cluster(row), reason) for row, reason in encoded.failed]
        yield answered + failed


def _grade_row(
    row: Row, shown_problem: ShownProblem, completions: Sequence[Completion], training: TrainingSet | None, content: str
) -> Result:
    """Grade completions of the problem as it was shown; the result has the letters of the row's own problem."""
    expected, samples = _expected(row, shown_problem), []
    for completion in completions:
        outcome, answer = grade_answer(completion.text, expected)
        if expected.answer_type is AnswerType.CHOICE:
            answer = shown_problem.original_letter(answer)
        samples.append(Sample(completion.text, outcome, answer, completion.tokens))
    return voted_result(
        row,
        cluster(row),
        samples,
        blind=training and training.guess_points(row),
        seen=training and training.has_image_of(row),
        asked=None if shown_problem.problem == row["problem"] else shown_problem.problem,
        cut_off=sum(completion.cut_off for completion in completions),
        content=content,
    )


def _expected(row: Row, shown_problem: ShownProblem) -> Expected:
    """What the row expects, for a question of choice in the letters that the model saw."""
    expected = Expected.of(row)
    if expected.answer_type is not AnswerType.CHOICE:
        return expected
    letter = shown_problem.shown_letter(solution_letter(row["solution"]))
    return Expected(AnswerType.CHOICE, letter, options_in(shown_problem.problem), question=shown_problem.problem)


def cluster(row: Row) -> str:
    """The cluster of a question for standard errors: its images; a question without images is a cluster by itself."""
    return image_key(row)


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
