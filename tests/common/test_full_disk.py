"""A disk that takes no more is one line that is true, whichever command and library meets it."""

import errno
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tqdm import tqdm

from open_r1.common.errors import UserError, run_command
from open_r1.common.exhausted.full_disk import refused_write
from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import graded_result
from open_r1.training.recovery.checkpoint_store import full_disk, seal
from open_r1.vocabulary.labels import Modality
from open_r1_testbed.phantoms import make_phantoms
from open_r1_testbed.tiny_models import build_tiny_checkpoint

GROWN = "the file became larger than the system allows"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms, and answers to questions, for the commands to work on."""
    folder = tmp_path_factory.mktemp("full")
    make_phantoms(folder / "phantoms", 2, 1, 0, [Modality.CT, Modality.MRI])
    with ResultWriter(folder / "answers.jsonl", {"rows": 40, "data": "CT", "checkpoint": "m"}) as writer:
        for number in range(40):
            row = {"id": f"q{number}", "problem": "What? A)x, B)y", "solution": "A", "modality": "CT"}
            writer.write(graded_result(row, f"q{number}", "<answer>A</answer>", tokens=3))
    build_tiny_checkpoint(folder / "tiny")
    (folder / "run").mkdir()
    lines = [json.dumps({"step": step, "loss": 0.1, "learning_rate": 1e-6}) + "\n" for step in range(1, 40)]
    (folder / "run" / "metrics.jsonl").write_text("".join(lines))
    medqa = {"question": "What?" * 20, "options": {"A": "x", "B": "y"}, "answer_idx": "A", "answer": "x"}
    (folder / "medqa.jsonl").write_text(
        "".join(json.dumps(medqa | {"question": f"What {n}?"}) + "\n" for n in range(60))
    )
    return folder


COMMANDS = {
    "phantoms": "-m open_r1_testbed.phantoms --train 2 --test 1 --output_dir full/phantoms",
    "riddles": "-m open_r1_testbed.riddles --train 240 --test 48 --output_dir full/riddles",
    "prepare": "scripts/prepare_omnimedvqa.py --splits_dir phantoms/splits --image_root phantoms --output_dir full/VQA",
    "benchmarks": "scripts/prepare_text_benchmarks.py --medqa medqa.jsonl --output_dir full/benchmarks",
    "report": "eval/report.py answers.jsonl --output_dir full/report",
    "curves": "eval/curves.py run --output full/curves.png",
    "infer": "eval/infer.py --model_path tiny --prompt_path phantoms/test.json --image_root phantoms --split train "
    "--max_new_tokens 4 --output_path full/answers.jsonl",
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_ends_in_one_line(command: str, place: Path, repository: Path) -> None:
    script_or_module, *words = COMMANDS[command].split()
    script = [script_or_module] if script_or_module == "-m" else [str(repository / script_or_module)]

    def no_file_grows() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    process = subprocess.run(
        [sys.executable, *script, *words], cwd=place, capture_output=True, text=True, preexec_fn=no_file_grows
    )
    assert process.returncode == 2, process.stdout + process.stderr
    assert "Traceback" not in process.stderr, process.stderr
    line = process.stderr.strip().splitlines()[-1]
    assert line.startswith("error: cannot write "), process.stderr
    assert GROWN in line


def test_phantoms_are_completed_once_there_is_room(tmp_path: Path, file_size_limit: Any) -> None:
    with pytest.raises(SystemExit), file_size_limit(2000):
        run_command(lambda: make_phantoms(tmp_path / "x", 2, 1, 0, [Modality.CT]) and None)
    again = make_phantoms(tmp_path / "x", 2, 1, 0, [Modality.CT])
    fresh = make_phantoms(tmp_path / "y", 2, 1, 0, [Modality.CT])
    files = {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()}
    assert files == {path.relative_to(fresh): path.read_bytes() for path in fresh.rglob("*") if path.is_file()}


def torch_file(path: Path) -> None:
    torch.save({"w": torch.zeros(100_000)}, path)


def saved_set(path: Path) -> None:
    Dataset.from_dict({"a": list(range(100_000))}).save_to_disk(path)


def safetensors_file(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(100_000)}, path)


@pytest.mark.parametrize("write", [torch_file, saved_set, safetensors_file], ids=lambda write: write.__name__)
def test_what_libraries_make_of_it_is_understood(
    write: Callable[[Path], None], tmp_path: Path, file_size_limit: Any
) -> None:
    with pytest.raises(Exception) as met, file_size_limit(5000):  # noqa: PT011
        write(tmp_path / "x")
    assert refused_write(met.value) in (GROWN, "the disk cannot be written")


def chain() -> Iterator[tuple[BaseException, str | None]]:
    full = OSError(errno.ENOSPC, "No space left on device")
    wrapped = RuntimeError("the set could not be made")
    wrapped.__cause__ = full
    yield full, "the disk is full"
    yield wrapped, "the disk is full"
    yield OSError(errno.ENOENT, "no such file"), None
    yield RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None


@pytest.mark.parametrize(("error", "message"), chain())
def test_only_a_disk_that_takes_no_more_is_one(error: BaseException, message: str | None) -> None:
    assert refused_write(error) == message


def test_an_error_that_is_none_of_the_users_keeps_its_trace() -> None:
    def main() -> int:
        raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="of ours"):
        run_command(main)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_an_error_begins_a_line_beside_an_open_progress_bar(
    rank: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A bar of this process is closed; one of the first process, which others cannot close, is left by a new line."""
    monkeypatch.setenv("LOCAL_RANK", rank)

    def main() -> int:
        bars.append(tqdm(total=2, disable=rank == "1"))
        raise UserError("no such folder")

    bars: list[Any] = []  # held open, as by the error's traceback
    with pytest.raises(SystemExit):
        run_command(main)
    assert capfd.readouterr().err.endswith("\nerror: no such folder\n")


def test_what_is_left_after_a_full_disk_is_told_as_it_is(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    nothing = full_disk(full, tmp_path)
    assert nothing is not None
    assert "there is no checkpoint to resume from, so the same command starts the run again" in nothing
    for step, resumable in ((1, True), (2, False)):
        stage = tmp_path / ".saving" / f"checkpoint-{step}"
        stage.mkdir(parents=True)
        (stage / "x").write_text("x")
        seal(stage, tmp_path / f"checkpoint-{step}", {"resumable": resumable})
    message = full_disk(full, tmp_path)
    assert message is not None
    assert message.endswith("checkpoint-1 is complete, and the same command continues from it")
