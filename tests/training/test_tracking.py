"""What a run tells trackers and its own folder: each tracker really runs, none learns more than it was asked for."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from published_sets import save_published_form

from open_r1.common.errors import UserError, run_command
from open_r1.common.metrics_log import METRICS, append_metrics, begin_metrics, read_metrics
from open_r1.drawing.training_curves import read_log
from open_r1.training.grpo_run import train_grpo
from open_r1.training.recovery.stop_signals import StopOnSignal
from open_r1.training.setup.tracking import as_text, prepare_trackers, tracker_ids
from open_r1.vocabulary.modes import Mode
from open_r1_testbed.tiny_models import build_tiny_checkpoint

QUESTION = b"What is shown in slice"  # stands in every prompt
FLAGS = (
    "grpo --model_name_or_path tiny --dataset_name CT --num_generations 2 --max_completion_length 4 --max_steps 2 "
    "--logging_steps 1 --save_strategy no --output_dir"
)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracking")
    build_tiny_checkpoint(folder / "tiny")
    save_published_form(folder / "CT", 4)
    return folder


@pytest.fixture
def train(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Runs a training in this process; the environment is as before afterwards."""
    before = dict(os.environ)
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("HOME", str(workplace))
    for name in [name for name in os.environ if name.startswith(("WANDB", "TRACKIO"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TRACKIO_DIR", str(workplace / "trackio"))

    def run(output: str, *flags: str) -> Path:
        monkeypatch.setattr(sys, "argv", [*FLAGS.split(), output, *flags])
        train_grpo(Mode.NOTHINK)
        return workplace / output

    yield run
    for name in os.environ.keys() - before.keys():
        del os.environ[name]


def contents(*folders: Path) -> bytes:
    """Every byte of every file below these folders."""
    return b"".join(path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file())


def recorded_runs(folder: Path) -> set[str]:
    """The ids of the wandb runs below a folder: a folder of its own for each process that recorded one."""
    return {path.name.rpartition("-")[2] for path in folder.glob("offline-run-*")}


def end_wandb() -> None:
    """The process is as if it had never used wandb, and all that was recorded is on the disk.

    A process keeps the first working directory in which it used wandb, and pytest may make the folder of these tests
    more than once.
    """
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    wandb.finish()
    wandb.teardown()


@pytest.mark.slow
def test_nothing_is_tracked_unless_asked_and_the_folder_alone_has_every_number(train: Any, workplace: Path) -> None:
    end_wandb()
    before = set((workplace / "wandb").glob("*"))
    folder = train("plain")
    assert set((workplace / "wandb").glob("*")) == before
    entries = read_metrics(folder)
    assert entries is not None
    state = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in entries] == [1, 2, 2]
    assert entries == json.loads(json.dumps(state))
    assert read_log(folder) == entries


@pytest.mark.slow
def test_nobody_is_told_that_a_trainer_was_built(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[Any] = []
    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", lambda **report: reports.append(report))
    monkeypatch.delenv("CI", raising=False)  # where TRL is silent by itself
    train("untold")
    assert reports == []


@pytest.mark.slow
@pytest.mark.parametrize("completions", [False, True], ids=["numbers", "completions"])
def test_wandb_offline_gets_text_only_where_asked_and_no_image(
    train: Any, workplace: Path, completions: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    end_wandb()
    before = set((workplace / "wandb").glob("offline-run-*"))
    train(f"wandb-{completions}", "--report_to", "wandb", "--log_completions", str(completions).lower())
    end_wandb()
    assert "nobody is logged in" in capfd.readouterr().out
    (recorded,) = set((workplace / "wandb").glob("offline-run-*")) - before
    data = contents(recorded)
    assert b"mean_length" in data
    assert (QUESTION in data) == completions
    assert b"\x89PNG" not in data
    assert b"\xff\xd8\xff" not in data
    names = {path.name for path in recorded.rglob("*") if path.is_file()}
    assert not names & {"output.log", "requirements.txt", "wandb-metadata.json", "diff.patch"}
    assert b"--dataset_name" not in data, "the command line was recorded"
    if completions:
        (table, *_) = sorted(recorded.rglob("*.table.json"))
        columns = json.loads(table.read_text())["columns"]
        assert columns == ["step", "prompt", "completion", "accuracy_reward", "format_reward", "advantage"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tensorboard", "trackio"])
def test_the_other_trackers_record_numbers_and_no_question(train: Any, workplace: Path, name: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    folder = train(name, "--report_to", name)
    recorded = [workplace / "trackio"] if name == "trackio" else [folder / "runs"]
    data = contents(*recorded)
    assert b"mean_length" in data
    assert QUESTION not in data


def continued(
    train: Any, output: str, *flags: str, between: Callable[[dict[str, Any]], object] = lambda story: None
) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """A run that is stopped after its first step, as by a signal, and goes on; and run.json of both."""
    flags = ("--save_strategy", "steps", "--save_steps", "1", *flags)
    stop = StopOnSignal.on_step_end

    def stop_at_once(self: StopOnSignal, *arguments: Any, **options: Any) -> None:
        self._signalled = True
        stop(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopOnSignal, "on_step_end", stop_at_once)
        folder = train(output, *flags)
    interrupted = json.loads((folder / "run.json").read_text())
    assert (interrupted["status"], interrupted["steps"]) == ("interrupted", 1)
    between(interrupted)
    train(output, *flags)
    return folder, interrupted, json.loads((folder / "run.json").read_text())


@pytest.mark.slow
def test_a_continued_run_is_one_wandb_run(train: Any, workplace: Path) -> None:
    end_wandb()
    before = recorded_runs(workplace / "wandb")

    def in_a_process_of_its_own(*words: str) -> Path:
        end_wandb()
        return train(*words)

    _, interrupted, story = continued(in_a_process_of_its_own, "wandb-continued", "--report_to", "wandb")
    assert story["trackers"] == interrupted["trackers"]
    assert recorded_runs(workplace / "wandb") - before == {story["trackers"]["wandb"]}
    in_a_process_of_its_own("wandb-other", "--report_to", "wandb")
    end_wandb()
    other_id = json.loads((workplace / "wandb-other" / "run.json").read_text())["trackers"]["wandb"]
    assert recorded_runs(workplace / "wandb") - before == {story["trackers"]["wandb"], other_id}
    assert other_id != story["trackers"]["wandb"]


@pytest.mark.slow
def test_a_continued_run_is_one_tensorboard_run_without_steps_that_are_made_again(train: Any) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    name = "tensorboard-continued"

    def log_more(story: dict[str, Any]) -> None:
        """As if the first process had logged a second step before it was killed."""
        with SummaryWriter(os.path.join(name, story["trackers"]["tensorboard"])) as writer:
            writer.add_scalar("train/loss", 99.0, 2)

    folder, interrupted, story = continued(train, name, "--report_to", "tensorboard", between=log_more)
    assert story["trackers"] == interrupted["trackers"]
    (place,) = (folder / "runs").iterdir()
    assert str(place) == str(folder / story["trackers"]["tensorboard"])
    assert len(list(place.iterdir())) == 3  # a file for each process
    losses = EventAccumulator(str(place)).Reload().Scalars("train/loss")
    assert [event.step for event in losses] == [1, 2]
    assert losses[1].value != 99.0


def test_trackio_goes_on_by_its_name(tmp_path: Path) -> None:
    training = arguments(report_to=["trackio"], run_name=None, output_dir=str(tmp_path / "mine"))
    ids = tracker_ids(training, {})
    assert ids["trackio"].startswith("mine-")
    assert training.run_name == ids["trackio"]
    again = arguments(report_to=["trackio"], run_name=None, output_dir=str(tmp_path / "mine"))
    assert tracker_ids(again, {"trackers": ids}) == ids
    assert again.run_name == ids["trackio"]
    named = arguments(report_to=["trackio"], run_name="CT", output_dir=str(tmp_path / "mine"))
    assert tracker_ids(named, {})["trackio"] == "CT"


def test_an_id_of_the_user_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "chosen")
    assert tracker_ids(arguments(report_to=["wandb"], run_name=None, output_dir="x"), {}) == {"wandb": "chosen"}


def arguments(**options: Any) -> Any:
    return SimpleNamespace(
        **{"report_to": [], "notes": [], "log_completions": False, "log_multimodal": False} | options
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"report_to": ["mlflow"]}, "--report_to mlflow is not supported; choose from wandb, tensorboard, trackio"),
        ({"report_to": ["tensorboard"]}, "needs the package tensorboard, which is not installed: pip install"),
        ({"log_multimodal": True}, "would upload patients' images"),
    ],
    ids=["unknown", "absent", "pictures"],
)
def test_a_tracker_that_cannot_be_is_one_line(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=message):
        prepare_trackers(arguments(**options))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--report_to comet_ml", "--report_to comet_ml is not supported"),
        ("--log_completions true --log_multimodal true", "--log_multimodal true: it would upload"),
        ("--trust_remote_code true", "--trust_remote_code true: it would run code"),
        ("--push_to_hub true", "--push_to_hub needs the hub, and HF_HUB_OFFLINE switches it off"),
    ],
)
def test_what_is_refused_is_refused_before_anything_is_loaded(
    train: Any, flags: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [*flags.split(), "--model_name_or_path", "no/such/checkpoint"]
    with pytest.raises(SystemExit) as stopped:
        run_command(lambda: train("refused", *words))
    assert stopped.value.code == 2
    assert capfd.readouterr().err.strip().splitlines()[-1].startswith(f"error: {message}")


def test_what_the_user_says_about_wandb_stands(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_CONSOLE", "wrap")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    prepare_trackers(arguments(report_to=["wandb"]))
    assert (os.environ["WANDB_CONSOLE"], os.environ["WANDB_MODE"]) == ("wrap", "disabled")
    assert os.environ["WANDB_DISABLE_CODE"] == "true"


def test_a_conversation_becomes_text() -> None:
    content = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    assert as_text([{"role": "user", "content": content}]) == "[image]What is it?"
    assert as_text([{"role": "assistant", "content": "A"}]) == "A"
    assert as_text("plain") == "plain"


# --- metrics.jsonl ---------------------------------------------------------------------------------------------------


def test_a_continued_run_repeats_no_line(tmp_path: Path) -> None:
    begin_metrics(tmp_path, [])
    for step in (1, 2, 3, 4, 4):
        append_metrics(tmp_path, {"loss": step / 10, "step": step})
    with open(tmp_path / METRICS, "ab") as file:
        file.write(b'{"loss": 0.5, "st')  # killed while writing
    read = read_metrics(tmp_path)
    assert read is not None
    assert [entry["step"] for entry in read] == [1, 2, 3, 4, 4]
    begin_metrics(tmp_path, read[:2])  # what checkpoint-2 has in its history
    append_metrics(tmp_path, {"loss": 0.3, "step": 3})
    lines = (tmp_path / METRICS).read_text().splitlines()
    assert lines == ['{"loss": 0.1, "step": 1}', '{"loss": 0.2, "step": 2}', '{"loss": 0.3, "step": 3}']
    begin_metrics(tmp_path, [])  # a run that begins anew
    assert (tmp_path / METRICS).read_text() == ""
    assert read_metrics(tmp_path / "elsewhere") is None


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    append_metrics(tmp_path, {"loss": float("nan"), "kl": float("inf"), "step": 1})
    assert (tmp_path / METRICS).read_text() == '{"loss": null, "kl": null, "step": 1}\n'


@pytest.mark.slow
def test_lines_are_whole_however_the_process_dies(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom open_r1.common.metrics_log import append_metrics, begin_metrics\n"
        "begin_metrics(sys.argv[1], [])\nprint('begun', flush=True)\n"
        "for step in range(1, 10**9): append_metrics(sys.argv[1], {'step': step, 'loss': 0.25, 'text': 'x' * 900})"
    )
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            while (tmp_path / METRICS).stat().st_size < 100_000:
                pass
            writer.send_signal(signal.SIGKILL)
        entries = read_metrics(tmp_path)
        assert entries is not None
        assert [entry["step"] for entry in entries] == list(range(1, len(entries) + 1))
        assert len(entries) > 100
