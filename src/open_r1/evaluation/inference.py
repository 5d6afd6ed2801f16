"""One evaluation run: a checkpoint answers every question of a data set, and every answer is on the disk at once.

Running the same command again goes on where the result file ends, whatever stopped the first run. A command that would
mix answers of another checkpoint, prompt or data set into the file is refused.
"""

import fcntl
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from open_r1.answers import Outcome
from open_r1.checkpoints import load_model, load_processor, model_source, read_family
from open_r1.errors import UserError
from open_r1.evaluation.generate import Encoder, Generator, Row, ahead, batches_by_length
from open_r1.evaluation.plan import (
    InferenceSettings,
    build_manifest,
    choose_mode,
    choose_rows,
    refuse_mixed_families,
)
from open_r1.evaluation.score import Result, ResultWriter, judged, read_results, unreadable
from open_r1.evaluation.statistics import accuracy
from open_r1.files import disk_errors, write_atomically
from open_r1.vqa_data import load_vqa, picture_key, summary

INTERRUPTED = 130  # exit status after Ctrl-C, as shells count it


def infer(settings: InferenceSettings) -> int:
    """Answer the questions that the result file does not answer yet, and say how the checkpoint did.

    Returns:
        The exit status: 0; 1 with `strict` and a question that could not be asked; 130 after an interrupt.

    Raises:
        UserError: flags, checkpoint or data that cannot be used, a result file of another run, or a full disk.
    """
    rows, dropped = load_vqa(settings.prompt_path, settings.split, settings.image_root)
    if dropped:
        _say(summary(dropped))
    folder = model_source(settings.model_path)
    refuse_mixed_families(settings.model_path, folder, Path(settings.prompt_path))
    mode, why = choose_mode(settings.mode, settings.prompt, settings.model_path, folder)
    processor = load_processor(folder, settings.min_pixels, settings.max_pixels, settings.processor)
    encoder = Encoder(processor, mode, settings.prompt, read_family(folder).has_vision)
    chosen = rows.select(choose_rows(rows["id"], settings.limit))
    manifest = build_manifest(settings, folder, encoder, rows["id"], len(chosen))
    output = Path(settings.output_path)
    with opened_alone(output, manifest) as writer:
        left = [index for index, name in enumerate(chosen["id"]) if name not in writer.done]
        _say(f"mode: {mode} ({why}); {len(left)} of {len(chosen)} questions to ask")
        finished = not left or _answer(settings, folder, encoder, chosen.select(left), writer)
    failed = report(output, read_results(output).results)
    if not finished:
        return INTERRUPTED
    return 1 if settings.strict and (failed or dropped) else 0


@contextmanager
def opened_alone(path: Path, manifest: Mapping[str, Any]) -> Iterator[ResultWriter]:
    """The result file, begun or continued, for this process alone; questions that failed before are to be asked again.

    Raises:
        UserError: another process writes it, it belongs to another run, or it cannot be written.
    """
    if path.is_dir():
        raise UserError(f"--output_path {path} is a folder; name a file in it")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        ResultWriter(path, manifest).close()  # refuses what is not ours, mends a torn line
        _forget_failures(path)
    with _locked(path), ResultWriter(path, manifest) as writer:
        yield writer


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with disk_errors(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"another process is writing {path}; wait for it or choose another file") from None
    finally:
        os.close(handle)


def _forget_failures(path: Path) -> None:
    """Take the lines of questions that could not be asked out of the file: their pictures may be there by now."""
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for number, line in enumerate(lines) if number == 0 or json.loads(line).get("error") is None]
    if len(kept) < len(lines):
        write_atomically(path, b"".join(kept))


def _answer(settings: InferenceSettings, folder: Path, encoder: Encoder, rows: Any, writer: ResultWriter) -> bool:
    """Ask every row; false if the user interrupted. What is answered is in the file at any time."""
    torch.manual_seed(settings.seed)  # greedy decoding draws nothing; for whatever a model might
    model = load_model(folder, settings.dtype, settings.attn_implementation, settings.where)
    generator = Generator(model, encoder.tokenizer, settings.max_new_tokens)
    done = len(writer.done)
    try:
        with tqdm(total=done + len(rows), initial=done, unit=" questions", dynamic_ncols=True) as bar:
            for results in answer_rows(generator, encoder, rows, settings.batch_size):
                _write(writer, results)
                bar.update(len(results))
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(
            f"a batch of {settings.batch_size} does not fit on {settings.where}; what is answered is kept: "
            "run again with a smaller --batch_size"
        ) from error
    except KeyboardInterrupt:
        _say(f"interrupted; {len(writer.done)} questions are answered and kept. The same command continues")
        return False
    return True


def _write(writer: ResultWriter, results: Sequence[Result]) -> None:
    try:
        for result in results:
            writer.write(result)
    except UserError as error:
        raise UserError(
            f"{error}. The {len(writer.done)} answers that were written are kept: the same command continues"
        ) from error


def answer_rows(generator: Generator, encoder: Encoder, rows: Any, batch_size: int) -> Iterator[list[Result]]:
    """Results of every row of a data set, a batch at a time; a row whose picture does not open gets an error."""
    batches = batches_by_length([len(problem) for problem in rows["problem"]], batch_size)
    for encoded in ahead(lambda indices: encoder(list(rows.select(indices))), batches):
        completions = generator(encoded.prompts) if encoded.prompts is not None else []
        answered = [
            judged(row, cluster(row), done.text, done.tokens)
            for row, done in zip(encoded.rows, completions, strict=True)
        ]
        yield answered + [unreadable(row, cluster(row), reason) for row, reason in encoded.failed]


def cluster(row: Row) -> str:
    """What questions that are not independent have in common: their picture; without one, nothing but themselves."""
    return picture_key(row) if row["image"] is not None else row["id"]


def report(path: Path, results: Sequence[Result]) -> int:
    """Print accuracy with its standard error; return how many questions could not be asked."""
    asked = [result for result in results if result.outcome is not None]
    failed = [result for result in results if result.outcome is None]
    if failed:
        _say(f"{len(failed)} questions could not be asked; the first: {failed[0].id}: {failed[0].error}")
    if failed and not asked:
        raise UserError(f"not one of {len(results)} questions could be asked: are the pictures where they should be?")
    if asked:
        estimate = accuracy([result.correct for result in asked], [result.image for result in asked])
        stderr = "unknown (one picture)" if estimate.stderr is None else f"{estimate.stderr:.3f}"
        unparsed = sum(result.outcome is Outcome.UNPARSED for result in asked) / len(asked)
        print(
            f"accuracy {estimate.mean:.3f} ± {stderr} (n = {len(asked)}), unparsed {unparsed:.1%}, errors {len(failed)}"
        )
        print(f"tables and heatmap: python eval/report.py {path} --output_dir {path.with_suffix('.report')}")
    return len(failed)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
