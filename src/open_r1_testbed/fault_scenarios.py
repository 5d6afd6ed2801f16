"""Real training runs killed, signalled and damaged, and what must hold after each: for scripts/chaos.py and the tests.

A scenario raises AssertionError with what did not hold, and returns one line of what was survived, with counts.
"""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_r1.checkpoints.folder import RUN_FILE
from open_r1.common.atomic_files import sha256_file
from open_r1.common.errors import EXIT_INTERRUPTED
from open_r1.training.recovery.checkpoint_store import STAGE, damage, newest_first, step_of
from open_r1.training.recovery.resume import DONE
from open_r1_testbed.forked_runs import ForkedRun, reward_text_length, small_set, start
from open_r1_testbed.tiny_models import build_tiny_checkpoint

QUESTIONS, EPOCHS = 8, 2
FLAGS = (
    f"--num_generations 2 --max_completion_length 6 --num_train_epochs {EPOCHS} --save_steps 1 --logging_steps 1 "
    "--learning_rate 1e-3 --report_to none --save_total_limit 3 --disable_tqdm true"
)
# Of the logged numbers those that measure time; every other must be equal to the bit.
_TIMES = ("time", "seconds", "per_second", "runtime")


@dataclass(frozen=True)
class Layout:
    """How a run is spread out; each makes 8 optimizer steps in 2 epochs."""

    processes: int = 1
    stage: int = 0
    """DeepSpeed's ZeRO stage; 0 is DDP."""
    lora: bool = False
    iterations: int = 1
    """Uses of the same completions; between two of them nothing can be saved."""
    evaluates: bool = False
    """Questions of the test split are asked after each step."""
    fsdp: bool = False
    """FSDP 2, as `accelerate launch` asks for it."""

    def __str__(self) -> str:
        engine = "DDP" if self.processes > 1 else "plain"
        engine = f"ZeRO-{self.stage}" if self.stage else "FSDP" if self.fsdp else engine
        reused = f", {self.iterations} iterations" if self.iterations > 1 else ""
        weights = "LoRA" if self.lora else "full weights"
        evaluating = ", evaluating" if self.evaluates else ""
        return f"{self.processes} process{'es' * (self.processes > 1)}, {engine}, {weights}{reused}{evaluating}"


LAYOUTS = (
    Layout(),
    Layout(lora=True),
    Layout(iterations=2),
    Layout(evaluates=True),
    Layout(2),
    Layout(2, evaluates=True),
    Layout(2, lora=True),
    Layout(2, stage=2),
    Layout(2, stage=3),
    Layout(2, stage=2, lora=True),
    Layout(2, stage=3, lora=True),
    Layout(2, fsdp=True),
    Layout(2, fsdp=True, lora=True),
)
# As `accelerate launch` passes recipes/accelerate_configs/fsdp_cpu.yaml on.
_FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "ACCELERATE_MIXED_PRECISION": "no",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_ACTIVATION_CHECKPOINTING": "false",
}


class Site:
    """A folder with a tiny base, questions and the runs that are made of them.

    Args:
        folder: is made.
        seed: of the moments at which things happen.
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder, self.random = folder, random.Random(seed)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "data" / "dataset_dict.json").exists():
            apart(lambda: (build_tiny_checkpoint(folder / "base"), small_set(folder / "data", QUESTIONS)))
        self._number = 0

    def fresh(self) -> Path:
        """A name for a run's folder that is not there yet."""
        self._number += 1
        return self.folder / f"run{self._number}"

    def start(self, output: Path, layout: Layout, *flags: str, fault: Callable[[int], None] | None = None) -> ForkedRun:
        """Start or continue a run, with a fault planted in each of its processes."""
        accumulation = 2 // layout.processes
        arguments = ["--model_name_or_path", str(self.folder / "base"), "--dataset_name", str(self.folder / "data")]
        arguments += ["--output_dir", str(output), *FLAGS.split(), "--num_iterations", str(layout.iterations)]
        arguments += ["--gradient_accumulation_steps", str(accumulation)]
        if layout.lora:
            arguments += ["--use_peft", "--lora_on", "both", "--lora_r", "4"]
        if layout.evaluates:
            arguments += ["--eval_strategy", "steps", "--eval_steps", "1", "--eval_on_start", "true"]
            arguments += ["--per_device_eval_batch_size", "1"]
        _mark(output).unlink(missing_ok=True)
        variables = {"DS_ACCELERATOR": "cpu"} if layout.stage else _FSDP if layout.fsdp else {}
        if layout.stage:
            arguments += ["--deepspeed", str(self._deepspeed(layout.stage))]

        def before(rank: int) -> None:
            reward_text_length(rank)
            if layout.evaluates and rank == 0:
                _mark_evaluations(_mark(output))
            if fault is not None:
                fault(rank)

        log = output.with_suffix(".log")
        return start([*arguments, *flags], log, layout.processes, before, environment=variables)

    def interrupted_copy(self, layout: Layout) -> Path:
        """A copy of a run that was killed after its fifth step, with three checkpoints."""
        original = self.folder / f"interrupted-{LAYOUTS.index(layout)}"
        if not original.exists():
            building = self.fresh()
            run = self.start(building, layout)
            assert _wait_for(run, lambda: (building / "checkpoint-5").exists())
            run.kill()
            shutil.rmtree(building / STAGE, ignore_errors=True)
            building.rename(original)
        return shutil.copytree(original, self.fresh())

    def _deepspeed(self, stage: int) -> Path:
        path = self.folder / f"zero{stage}.json"
        auto = (
            "train_micro_batch_size_per_gpu",
            "gradient_accumulation_steps",
            "train_batch_size",
            "gradient_clipping",
        )
        settings: dict[str, Any] = dict.fromkeys(auto, "auto") | {"zero_allow_untested_optimizer": True}
        zero = {"stage": stage} | ({"stage3_gather_16bit_weights_on_model_save": True} if stage == 3 else {})
        path.write_text(json.dumps(settings | {"zero_optimization": zero}))
        return path

    def finished(self, layout: Layout) -> Path:
        """The uninterrupted run of a layout, which the others are held against."""
        output = self.folder / f"whole-{LAYOUTS.index(layout)}"
        if not output.exists():
            run = self.start(output, layout)
            assert run.wait() == [0] * layout.processes, tail(run)
        return output


def _mark(output: Path) -> Path:
    """Is there while a run evaluates."""
    return output.with_suffix(".evaluating")


def _mark_evaluations(mark: Path) -> None:
    from open_r1.training.grpo.trainer import SharedPrefixGRPOTrainer

    original = SharedPrefixGRPOTrainer.evaluate

    def evaluate(self: Any, *arguments: Any, **options: Any) -> Any:
        mark.touch()
        try:
            return original(self, *arguments, **options)
        finally:
            mark.unlink()

    SharedPrefixGRPOTrainer.evaluate = evaluate


def apart(work: Callable[[], object]) -> None:
    """Do something in a fork, so that this process stays fit for forking."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0, "the preparation failed"


def tail(run: ForkedRun) -> str:
    """The end of what a run printed."""
    return run.log.read_text()[-3000:]


def logged(output: Path) -> list[dict[str, Any]]:
    """What a finished run has logged, without times."""
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [
        {key: value for key, value in entry.items() if not any(word in key for word in _TIMES)} for entry in history
    ]


def require_equal(output: Path, expected: Path) -> None:
    """Weights to the bit, and every logged number."""
    name = "adapter_model.safetensors" if (expected / "adapter_model.safetensors").exists() else "model.safetensors"
    assert logged(output) == logged(expected), "the logged numbers differ"
    assert sha256_file(output / name) == sha256_file(expected / name), "the weights differ"


def require_whole_checkpoints(output: Path) -> int:
    """No checkpoint of a run may be damaged; returns the newest one's step, 0 if there is none."""
    checkpoints = newest_first(output)
    assert [damage(path) for path in checkpoints] == [None] * len(checkpoints)
    return step_of(checkpoints[0]) if checkpoints else 0


# --- kill -9 ---------------------------------------------------------------------------------------------------------


def kills(site: Site, layout: Layout, count: int) -> str:
    """`kill -9` at random moments, then the same command again, until `count` kills have been survived.

    A run that ends is compared with the uninterrupted one, and another begins.
    """
    expected = site.finished(layout)
    killed = ended = 0
    output, moments = site.fresh(), []
    while killed < count or ended == 0:
        if _is_done(output):  # the last kill came after its end
            require_equal(output, expected)
            ended += 1
            output = site.fresh()
        run = site.start(output, layout)
        if killed < count:
            moments.append(_kill_at_a_random_moment(site, run, output, layout.evaluates))
            killed += 1
            require_whole_checkpoints(output)
            continue
        assert run.wait() == [0] * layout.processes, tail(run)
        require_equal(output, expected)
        ended += 1
        shutil.rmtree(output)
        output = site.fresh()
    places = ", ".join(f"{moments.count(moment)} {moment}" for moment in sorted(set(moments)))
    return f"{layout}: {killed} kills ({places}); weights and logged numbers equal to the bit"


def kill_of_one(site: Site, layout: Layout, rank: int) -> str:
    """`kill -9` to one of several processes: the others end by themselves, and the same command continues."""
    expected, output = site.finished(layout), site.fresh()
    run = site.start(output, layout)
    assert _wait_for(run, lambda: (output / "checkpoint-3").exists())
    time.sleep(site.random.uniform(0, 0.3))
    start = time.monotonic()
    os.kill(run.pids[rank], signal.SIGKILL)
    codes = run.wait()
    seconds = time.monotonic() - start
    assert codes[rank] == -signal.SIGKILL
    assert all(code in (2, -signal.SIGTERM) for place, code in enumerate(codes) if place != rank), (codes, tail(run))
    assert "Traceback" not in run.log.read_text(), tail(run)
    require_whole_checkpoints(output)
    run = site.start(output, layout)
    assert run.wait() == [0] * layout.processes, tail(run)
    require_equal(output, expected)
    return f"{layout}: rank {rank} alone killed: the other ended after {seconds:.1f} s; continued equal to the bit"


def _is_done(output: Path) -> bool:
    return (output / RUN_FILE).is_file() and json.loads((output / RUN_FILE).read_text())["status"] == DONE


def _is_saving(output: Path, since: int) -> bool:
    """Whether a checkpoint is being built that was begun after `since` (ns): an earlier kill leaves its stage."""
    try:
        return any(path.stat().st_mtime_ns > since for path in (output / STAGE).glob("*"))
    except OSError:  # it has just got its name
        return True


def _kill_at_a_random_moment(site: Site, run: ForkedRun, output: Path, evaluates: bool) -> str:
    """Kill once training is under way; returns where it stood. A run that ends before is left as it is."""
    start, draw = time.time_ns(), site.random.random()
    if evaluates and draw < 1 / 3:
        arrived = _wait_for(run, _mark(output).exists)
        time.sleep(site.random.uniform(0, 0.3))
    elif draw < (2 / 3 if evaluates else 1 / 2):  # a save takes less time than a step
        arrived = _wait_for(run, lambda: _is_saving(output, start))
        time.sleep(site.random.uniform(0, 0.05))
    else:
        newest_step = len(newest_first(output)) and step_of(newest_first(output)[0])
        arrived = _wait_for(run, lambda: any(step_of(path) > newest_step for path in newest_first(output)))
        time.sleep(site.random.uniform(0, 0.3))
    saving, evaluating = _is_saving(output, start), _mark(output).exists()
    run.kill()
    if saving or evaluating:
        return "while saving" if saving else "while evaluating"
    return "within a step" if arrived else "at the end"


def _wait_for(run: ForkedRun, happened: Callable[[], bool], seconds: float = 1200.0) -> bool:
    """Whether it happened before the run ended."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, tail(run)
        if not Path(f"/proc/{run.pids[0]}").exists() or _is_zombie(run.pids[0]):
            return False
        time.sleep(0.001)
    return True


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def kills_while_saving(site: Site, count: int) -> str:
    """`kill -9` at random moments of a save: no checkpoint is unusable, and no more than `save_steps` is lost."""
    expected, layout = site.finished(LAYOUTS[0]), LAYOUTS[0]
    output, killed, ended, lost = site.fresh(), 0, 0, 0
    while killed < count:
        if _is_done(output):  # the last kill came after its end
            require_equal(output, expected)
            ended += 1
            shutil.rmtree(output)
        before = require_whole_checkpoints(output)
        run = site.start(output, layout)
        start = time.time_ns()
        if not _wait_for(run, lambda start=start, output=output: _is_saving(output, start)):
            assert run.wait() == [0], tail(run)
            require_equal(output, expected)
            ended += 1
            shutil.rmtree(output)
            continue
        time.sleep(site.random.uniform(0, 0.15))
        run.kill()
        killed += 1
        after = require_whole_checkpoints(output)
        assert after >= before
        lost += after == before
    return f"{killed} kills while saving: 0 unusable checkpoints, {lost} cost the step being saved, {ended} runs ended"


# --- signals ---------------------------------------------------------------------------------------------------------


def signals(site: Site, layout: Layout, to: Iterable[int], number: signal.Signals = signal.SIGTERM) -> str:
    """A signal to some ranks: all of them save, end with a status of their own, and the same command continues.

    It comes within an evaluation if the layout has any.
    """
    expected, output = site.finished(layout), site.fresh()
    run = site.start(output, layout)
    assert _wait_for(run, lambda: (output / "checkpoint-2").exists())
    if layout.evaluates:
        assert _wait_for(run, _mark(output).exists)
    start = time.monotonic()
    ranks = list(to)
    for rank in ranks:
        os.kill(run.pids[rank], number)
    codes = run.wait()
    seconds = time.monotonic() - start
    assert codes == [EXIT_INTERRUPTED] * layout.processes, tail(run)
    story = json.loads((output / "run.json").read_text())
    assert story["status"] == "interrupted"
    assert require_whole_checkpoints(output) == story["steps"]
    run = site.start(output, layout)
    assert run.wait() == [0] * layout.processes, tail(run)
    require_equal(output, expected)
    return f"{layout}: {number.name} to rank {ranks}: saved and ended with {EXIT_INTERRUPTED} after {seconds:.1f} s"
