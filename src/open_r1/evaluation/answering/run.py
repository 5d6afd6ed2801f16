"""One evaluation run: a checkpoint answers every question of a data set, and every answer is on the disk at once.

Running the same command again goes on where the result file ends, whatever stopped the first run and with however
many processes. A command that would mix answers of another checkpoint, prompt or data set into the file is refused.
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
from open_r1.common.atomic_files import disk_errors, write_atomically
from open_r1.common.errors import UserError
from open_r1.data.loading import data_fingerprint, load_rows, summary
from open_r1.data.row_images import image_key
from open_r1.evaluation.answering.batches import ahead, batches_by_length, grouped
from open_r1.evaluation.answering.encoder import Encoded, Encoder, Row
from open_r1.evaluation.answering.generator import Completion, Generator
from open_r1.evaluation.answering.manifest import build_manifest, choose_mode, choose_rows, refuse_mixed_families
from open_r1.evaluation.answering.perturbations import Donors, Shown, View, count_fixed
from open_r1.evaluation.answering.processes import Launch, Refused, joined
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import Result, Sample, read_results, unreadable, voted
from open_r1.evaluation.scoring.shown_content import contents, require_same_content
from open_r1.evaluation.scoring.statistics import clustered_stderr, pass_at_k
from open_r1.evaluation.scoring.train_overlap import TrainingSet, find_training_set
from open_r1.grading.grader import Outcome, grade
from open_r1.grading.problems import options_in, solution_letter

INTERRUPTED = 130  # exit status after Ctrl-C, as shells count it

Answer = Callable[[Encoded], list[list[Completion]]]
"""A backend: the completions of each prompt of a batch."""


def infer(settings: InferenceSettings) -> int:
    """Answer the questions that the result file does not answer yet, and say how the checkpoint did.

    Under torchrun the processes share the questions; the first one prints.

    Returns:
        The exit status: 0; 1 with `strict` and a question that could not be asked; 130 after an interrupt.

    Raises:
        UserError: flags, checkpoint or data that cannot be used, a result file of another run, or a full disk.
    """
    with joined() as launch:
        return _infer(settings, launch, Kept())


class Kept:
    """The model that was loaded last: the next data set asks it too, if nothing else differs."""

    def __init__(self) -> None:
        self._settings: InferenceSettings | None = None
        self._answer: Answer | None = None

    def backend(self, settings: InferenceSettings, job: "_Job", where: str) -> Answer:
        """The model of these settings, loaded unless it is at hand."""
        wanted = replace(settings, prompt_path="", output_path="")
        if self._answer is None or self._settings != wanted:
            self._answer = None  # two models may not fit
            self._settings, self._answer = wanted, _backend(settings, job, where)
        return self._answer


def infer_all(every: Sequence[InferenceSettings]) -> int:
    """`infer` for one checkpoint and data set after the other; one that cannot be used keeps no other waiting.

    Returns:
        The highest exit status; 2 where a checkpoint could not be used.

    Raises:
        UserError: as `infer`, for a single checkpoint.
    """
    if len(every) == 1:
        return infer(every[0])
    worst, kept = 0, Kept()
    with joined() as launch:
        for settings in every:
            launch.say(f"== {settings.model_path} on {settings.prompt_path} -> {settings.output_path}")
            try:
                status = _infer(settings, launch, kept)
            except UserError as error:
                launch.say(f"error: {error}")
                status = 2
            except Refused:
                status = 2
            if status == INTERRUPTED:
                return status
            worst = max(worst, status)
        files = sorted({os.path.join(os.path.dirname(run.output_path), "*.jsonl") for run in every})
        if launch.is_first:
            print(f"one report of all: python eval/report.py {' '.join(files)} --output_dir REPORT")
    return worst


@dataclass(frozen=True)
class _Job:
    """Everything about a run but the model."""

    folder: Path  # the checkpoint's
    encoder: Encoder
    questions: Any  # rows to ask
    dropped: int
    training: TrainingSet | None
    manifest: dict[str, Any]
    mode: str


def _infer(settings: InferenceSettings, launch: Launch, kept: Kept) -> int:
    job = launch.agreed(lambda: _prepare(settings, launch))
    output = Path(settings.output_path)
    shown = launch.from_first(lambda: contents(job.questions, job.encoder.content))
    job.manifest["content_sha256"] = data_fingerprint(f"{name} {content}" for name, content in shown.items())
    with opened(output, job.manifest, launch, shown) as writer:
        places = {name: index for index, name in enumerate(job.questions["id"]) if name not in writer.done}
        left = job.questions.select(places.values())
        launch.say(f"mode: {job.mode}; {len(left)} of {len(job.questions)} questions to ask")
        finished = not left or _answer(settings, job, left, writer, launch, kept)
        finished = all(launch.gather(finished))
    failed = launch.from_first(lambda: report(output, read_results(output).results, launch.say))
    if not finished:
        return INTERRUPTED
    return 1 if settings.strict and (failed or job.dropped) else 0


def _prepare(settings: InferenceSettings, launch: Launch) -> _Job:
    where = launch.device(settings.where)
    rows, dropped = load_rows(settings.prompt_path, settings.split, settings.image_root)
    if dropped:
        launch.say(summary(dropped))
    folder = model_source(settings.model_path)
    if settings.base is not None:
        name_base(folder, settings.base)
    forced = refuse_mixed_families(settings.model_path, folder, Path(settings.prompt_path), settings.force)
    if forced:
        launch.say(f"forced: {forced}")
    mode, why = choose_mode(settings.mode, settings.prompt, settings.model_path, folder)
    processor = load_processor(folder, settings.min_pixels, settings.max_pixels, settings.processor)
    training, line = find_training_set(settings.train_path, folder, settings.prompt_path, settings.image_root)
    launch.say(line)
    view = View(settings.image, settings.options, settings.seed, _donors(settings, rows))
    gpu = where if where.startswith("cuda") else None
    encoder = _encoder_class(settings)(processor, mode, settings.prompt, read_family(folder).has_vision, view, gpu)
    chosen = rows.select(choose_rows(rows["id"], settings.limit))
    manifest = build_manifest(settings, folder, encoder, rows["id"], len(chosen), training, bool(forced))
    counts = count_fixed(view, chosen.select_columns(["id", "problem"]))
    if counts:
        some, whole = counts["options_some_fixed"], counts["options_all_fixed"]
        launch.say(
            f"options shuffled: in {some} of {len(chosen)} questions those like 'none of these' keep their place, "
            f"{whole} keep their order, as 'both A and B' would mean something else in another"
        )
    manifest |= counts
    return _Job(folder, encoder, chosen, len(dropped), training, manifest, f"{mode} ({why})")


def _encoder_class(settings: InferenceSettings) -> type[Encoder]:
    if settings.backend != "vllm":
        return Encoder
    from open_r1.evaluation.answering.vllm_backend import VllmEncoder, require_backend

    require_backend()
    return VllmEncoder


def _donors(settings: InferenceSettings, rows: Any) -> Mapping[str, Row]:
    return Donors(rows, settings.seed) if settings.image == "shuffled" else {}


# ------------------------------------------------------------------------------------------------ the result file


@contextmanager
def opened(path: Path, manifest: Mapping[str, Any], launch: Launch, shown: Mapping[str, str]) -> Iterator[ResultWriter]:
    """The result file, begun or continued, for the processes of this launch alone.

    The first process mends it, and forgets questions that could not be asked: they are asked again. Every process
    holds a shared lock while it writes; the exclusive one that a launch begins with is not to be had before the last
    process of an earlier launch is gone, orphans of a killed one included.

    Raises:
        UserError: another launch writes it, it belongs to another run, or it cannot be written.
    """
    with ExitStack() as stack:
        done = launch.from_first(lambda: _mend(path, manifest, shown, launch.say))
        launch.agreed(lambda: stack.enter_context(_locked(path, fcntl.LOCK_SH)))
        yield stack.enter_context(ResultWriter(path, manifest, done))


def _mend(path: Path, manifest: Mapping[str, Any], shown: Mapping[str, str], say: Callable[[str], object]) -> list[str]:
    """Make the file ready to append to; returns the ids that are answered."""
    if path.is_dir():
        raise UserError(f"--output_path {path} is a folder; name a file in it")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path, fcntl.LOCK_EX):
        ResultWriter(path, manifest).close()  # refuses what is not ours, mends torn lines
        require_same_content(path, shown, manifest["content_sha256"], say)
        _forget_failures(path)
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


def _forget_failures(path: Path) -> None:
    """Take the lines of questions that could not be asked out of the file: their images may be there by now."""
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for number, line in enumerate(lines) if number == 0 or json.loads(line).get("error") is None]
    if len(kept) < len(lines):
        write_atomically(path, b"".join(kept))


# ------------------------------------------------------------------------------------------------------ answering


def _answer(
    settings: InferenceSettings, job: _Job, left: Any, writer: ResultWriter, launch: Launch, kept: Kept
) -> bool:
    """Ask this process's share; false if the user interrupted. What is answered is in the file at any time."""
    where = launch.device(settings.where)
    mine = left.select(launch.share(grouped(_images(left))))
    answer = launch.agreed(lambda: kept.backend(settings, job, where))
    done = len(writer.done) if launch.size == 1 else 0
    label = None if launch.size == 1 else f"process 1 of {launch.size}"
    bar = tqdm(
        total=done + len(mine),
        initial=done,
        unit=" questions",
        desc=label,
        dynamic_ncols=True,
        disable=not launch.is_first,
    )
    try:
        with bar:
            for results in answer_rows(answer, job.encoder, mine, settings.batch_size, job.training):
                _write(writer, results)
                bar.update(len(results))
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(
            f"a batch of {settings.batch_size} does not fit on {where}; what is answered is kept: "
            "run again with a smaller --batch_size"
        ) from error
    except KeyboardInterrupt:
        launch.say(f"interrupted; {len(writer.done)} questions are answered and kept. The same command continues")
        return False
    return True


def _backend(settings: InferenceSettings, job: _Job, where: str) -> Answer:
    if settings.backend == "vllm":
        from open_r1.evaluation.answering.vllm_backend import VllmGenerator

        return VllmGenerator(settings, job.folder, job.encoder)
    torch.manual_seed(settings.seed)  # nothing here draws from it; for whatever a model might
    model = load_model(job.folder, settings.dtype, settings.attn_implementation, where)
    return Generator(model, job.encoder.tokenizer, settings.max_new_tokens, settings.sampling)


def _images(rows: Any) -> list[str]:
    """What tells the images of a data set apart, well enough to put questions about one next to each other.

    The stored path, which costs nothing to read; where there is none, the image's bytes.
    """
    found = []
    for batch in rows.select_columns(["image", "id"]).iter(batch_size=64):
        for image, name in zip(batch["image"], batch["id"], strict=True):
            found.append(name if image is None else image["path"] or image_key({"image": image}))
    return found


def _write(writer: ResultWriter, results: Sequence[Result]) -> None:
    try:
        for result in results:
            writer.write(result)
    except UserError as error:
        raise UserError(
            f"{error}. The {len(writer.done)} answers that were written are kept: the same command continues"
        ) from error


def answer_rows(
    answer: Answer, encoder: Encoder, rows: Any, batch_size: int, training: TrainingSet | None = None
) -> Iterator[list[Result]]:
    """Results of every row of a data set, a batch at a time; a row whose image does not open gets an error."""
    lengths = [len(problem) for problem in rows["problem"]]
    batches = batches_by_length(lengths, batch_size, _images(rows))
    for encoded in ahead(lambda indices: encoder(list(rows.select(indices))), batches):
        completions = answer(encoded) if encoded.rows else []
        answered = [
            _judge(row, shown, done, training, encoder.content(row))
            for row, shown, done in zip(encoded.rows, encoded.shown, completions, strict=True)
        ]
        failed = [unreadable(row, cluster(row), reason) for row, reason in encoded.failed]
        yield answered + failed


def _judge(row: Row, shown: Shown, done: Sequence[Completion], training: TrainingSet | None, content: str) -> Result:
    """Judge what was written against the problem as it was shown; letters are given as the row itself has them."""
    options, solution = options_in(shown.problem), shown.letter(solution_letter(row["solution"]))
    samples = []
    for each in done:
        outcome, letter = grade(each.text, solution, options)
        samples.append(Sample(each.text, outcome, shown.original(letter), each.tokens))
    return voted(
        row,
        cluster(row),
        samples,
        blind=training and training.blind(row),
        seen=training and training.seen(row),
        asked=None if shown.problem == row["problem"] else shown.problem,
        cut_off=sum(each.cut_off for each in done),
        content=content,
    )


def cluster(row: Row) -> str:
    """What questions that are not independent have in common: their image; without one, nothing but themselves."""
    return image_key(row) if row["image"] is not None else row["id"]


# ------------------------------------------------------------------------------------------------------ the result


def report(path: Path, results: Sequence[Result], say: Callable[[str], None]) -> int:
    """Print accuracy with its standard error; return how many questions could not be asked."""
    asked = [result for result in results if result.outcome is not None]
    failed = [result for result in results if result.outcome is None]
    if failed:
        say(f"{len(failed)} questions could not be asked; the first: {failed[0].id}: {failed[0].error}")
    if failed and not asked:
        raise UserError(f"not one of {len(results)} questions could be asked: are the images where they should be?")
    if asked:
        unparsed = sum(result.outcome is Outcome.UNPARSED for result in asked) / len(asked)
        print(
            f"accuracy {_with_error(asked, [float(result.correct) for result in asked])} (n = {len(asked)}), "
            f"unparsed {unparsed:.1%}, errors {len(failed)}"
        )
        if asked[0].samples is not None:
            print(_sampled(asked))
        print(f"tables and heatmap: python eval/report.py {path} --output_dir {path.with_suffix('.report')}")
    return len(failed)


def _sampled(asked: Sequence[Result]) -> str:
    """The accuracy above is the majority vote's; beside it the chance that one of k samples is right."""
    count = min(len(result.samples or ()) for result in asked)
    parts = []
    for k in sorted({1, count}):
        rates = [pass_at_k(count, sum(s.outcome is Outcome.CORRECT for s in r.samples or ()), k) for r in asked]
        parts.append(f"pass@{k} {_with_error(asked, rates)}")
    return f"majority vote of {count} samples; {', '.join(parts)}"


def _with_error(asked: Sequence[Result], values: Sequence[float]) -> str:
    stderr = clustered_stderr(values, [result.image for result in asked])
    mean = sum(values) / len(values)
    return f"{mean:.3f} ± {'unknown (one image)' if stderr is None else f'{stderr:.3f}'}"
