"""Longer runs, and runs on another number of processes; their runs are forks, see `forked_runs`."""

import json
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from open_r1.training import grpo_run
from open_r1.training.grpo.trainer import SharedPrefixGRPOTrainer
from open_r1.training.recovery.stop_signals import StopOnSignal
from open_r1.training.sft_run import train_sft
from open_r1_testbed.fault_scenarios import Layout, Site, logged, require_equal, tail
from open_r1_testbed.forked_runs import ForkedRun, start

EPOCHS = ("--num_train_epochs", "1")
CONSTANT = ("--lr_scheduler_type", "constant")
# Four prompts, on one, two or four processes with one prompt each.
PROMPTS_PER_STEP = {count: ("--gradient_accumulation_steps", str(4 // count)) for count in (1, 2, 4)}
SFT_FLAGS = (
    "--per_device_train_batch_size 1 --gradient_accumulation_steps 1 --num_train_epochs 2 --learning_rate 1e-3 "
    "--save_strategy steps --save_steps 1 --logging_steps 1 --report_to none --disable_tqdm true"
)
Entries = dict[int, dict[str, Any]]  # log entries by step


def stop_after(step: int) -> Callable[[int], None]:
    """A signal to the first process within a step."""

    def plant(rank: int) -> None:
        original_step_end = StopOnSignal.on_step_end

        def on_step_end(self: StopOnSignal, args: Any, state: Any, control: Any, **more: Any) -> None:
            self._signalled = self._signalled or (rank == 0 and state.global_step == step)
            original_step_end(self, args, state, control, **more)

        StopOnSignal.on_step_end = on_step_end  # type: ignore[method-assign]

    return plant


def noting(path: Path, then: Callable[[int], None] = lambda rank: None) -> Callable[[int], None]:
    """Write down which questions each step has."""

    def plant(rank: int) -> None:
        (spread,) = grpo_run.rewards_for()  # type: ignore[call-arg]

        def reward(**batch: Any) -> Any:
            step = batch["trainer_state"].global_step
            with open(path, "a") as file:
                file.writelines(f"{step} {problem}\n" for problem in map(json.dumps, batch["problem"]))
            return spread(**batch)

        grpo_run.rewards_for = lambda *_: [reward]
        then(rank)

    return plant


def questions(path: Path) -> dict[int, list[str]]:
    """The questions of each step, sorted; a group's question as often as it has completions."""
    problems_by_step = defaultdict(list)
    for line in path.read_text().splitlines():
        step, problem = line.split(" ", 1)
        problems_by_step[int(step)].append(problem)
    return {step: sorted(problems) for step, problems in problems_by_step.items()}


def ended(run: Any, *codes: int) -> str:
    """The run's output, once it has ended as expected."""
    assert run.wait() == list(codes), tail(run)
    return run.log.read_text()


def longer(site: Site) -> None:
    """One epoch, then a second one: with a constant rate to the bit what two epochs are."""
    whole, output = site.fresh(), site.fresh()
    ended(site.start(whole, Layout(), *CONSTANT), 0)
    ended(site.start(output, Layout(), *CONSTANT, *EPOCHS), 0)
    assert "holds a finished run" in ended(site.start(output, Layout(), *CONSTANT, *EPOCHS), 2)
    assert "holds a finished run" in ended(site.start(output, Layout(), *CONSTANT, "--max_steps", "4"), 2)
    log = ended(site.start(output, Layout(), *CONSTANT), 0)
    assert "was finished after 4 steps and is extended from checkpoint-4" in log, log
    require_equal(output, whole)
    story = json.loads((output / "run.json").read_text())
    assert (story["status"], story["steps"]) == ("done", 8)
    (continuation,) = story["continued"]
    assert continuation["at_step"] == 4
    assert continuation["finished_before"] < story["finished"]
    log = ended(site.start(output, Layout(), *CONSTANT, "--max_steps", "9"), 0)  # and once more, by steps
    assert json.loads((output / "run.json").read_text())["steps"] == 9


def rates(site: Site) -> None:
    """A linear rate of 1e-3: 7.5e-4 of one epoch's schedule and zero at its end, but half of it by two epochs'."""
    whole, output = site.fresh(), site.fresh()
    ended(site.start(whole, Layout()), 0)
    ended(site.start(output, Layout(), *EPOCHS), 0)
    log = ended(site.start(output, Layout(), fault=stop_after(5)), 75)
    line = "learning rate after step 4: 0 in the checkpoint's schedule, now 0.0005 in that over 8 steps "
    line += "(SchedulerType.LINEAR)"
    assert line in log or line.replace("SchedulerType.LINEAR", "linear") in log, log
    log = ended(site.start(output, Layout()), 0)  # interrupted in its longer form, it goes on as any run
    assert "learning rate after" not in log.rpartition("continuing from")[2], log
    mine, all_of_two = ({e["step"]: e["learning_rate"] for e in logged(f) if "loss" in e} for f in (output, whole))
    assert all_of_two[5] == 1e-3 * 0.5, all_of_two
    assert [mine[step] for step in (5, 6, 7, 8)] == [all_of_two[step] for step in (5, 6, 7, 8)], (mine, all_of_two)
    assert mine[1] == 1e-3
    assert mine[4] == 1e-3 * 0.25


def between_uses(site: Site) -> None:
    """Completions used twice, and an end between two uses: the run goes on from where a use ended."""
    output, layout = site.fresh(), Layout(iterations=2)
    ended(site.start(output, layout, "--max_steps", "3"), 0)
    log = ended(site.start(output, layout, "--max_steps", "4"), 0)
    assert "was finished after 3 steps and is extended from checkpoint-2" in log, log


def nothing_to_go_on_from(site: Site) -> None:
    """What cannot be made longer says what can be done instead, and stays as it is."""
    output = site.fresh()
    ended(site.start(output, Layout(), *EPOCHS, "--save_strategy", "no"), 0)
    before = {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}
    log = ended(site.start(output, Layout(), "--save_strategy", "no"), 2)
    assert f"a new run: --model_name_or_path {output}" in log, log
    assert {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()} == before
    weights = site.fresh()
    ended(site.start(weights, Layout(), *EPOCHS, "--save_only_model", "true"), 0)
    assert "--model_name_or_path may name its weights" in ended(site.start(weights, Layout()), 2)


def same_completions(path: Path, then: Callable[[int], None] = lambda rank: None) -> Callable[[int], None]:
    """As `noting`, with completions that depend on the prompt alone, so that runs with other random numbers compare."""

    def plant(rank: int) -> None:
        from fixed_completions import fixed

        original_init = SharedPrefixGRPOTrainer.__init__

        def init(self: SharedPrefixGRPOTrainer, **options: Any) -> None:
            original_init(self, **options)
            fixed(self)

        SharedPrefixGRPOTrainer.__init__ = init  # type: ignore[method-assign]
        noting(path, then)(rank)

    return plant


def processes(site: Site) -> None:
    """Two processes, then one, and the other way round: each step has the questions of an uninterrupted run.

    With the same completions the first step after continuing has the same loss and gradient.
    """
    whole, wanted = site.fresh(), site.folder / "wanted"
    ended(site.start(whole, Layout(2), fault=same_completions(wanted)), 0, 0)
    expected = {entry["step"]: entry for entry in logged(whole) if "loss" in entry}
    assert expected[4]["grad_norm"] > 0.01, expected
    for first, then in ((2, 1), (1, 2)):
        output, notes = site.fresh(), site.folder / f"seen-{first}-{then}"
        ended(site.start(output, Layout(first), fault=same_completions(notes, stop_after(3))), *[75] * first)
        log = ended(site.start(output, Layout(then), fault=same_completions(notes)), *[0] * then)
        assert f"{first} processes then, {then} now: every step keeps its questions" in log, log
        assert questions(notes) == questions(wanted)
        entries = {entry["step"]: entry for entry in logged(output) if "loss" in entry}
        assert sorted(entries) == list(range(1, 9))
        rates = [(entries[step]["learning_rate"], expected[step]["learning_rate"]) for step in entries]
        assert [mine for mine, _ in rates] == [theirs for _, theirs in rates]
        assert abs(entries[4]["loss"] - expected[4]["loss"]) < 1e-6, (entries[4], expected[4])
        assert abs(entries[4]["grad_norm"] / expected[4]["grad_norm"] - 1) < 1e-4, (entries[4], expected[4])
        story = json.loads((output / "run.json").read_text())
        assert [record["processes"] for record in story["continued"]] == [then]


def divided_weights(site: Site) -> None:
    """Under FSDP, whose checkpoints hold whole tensors; a run without it cannot read them."""
    whole, output, notes = site.fresh(), site.fresh(), site.folder / "divided"
    ended(site.start(whole, Layout(), *PROMPTS_PER_STEP[1], fault=same_completions(site.folder / "undivided")), 0)
    expected = {entry["step"]: entry for entry in logged(whole) if "loss" in entry}
    four, two = (Layout(count, fsdp=True) for count in (4, 2))
    stopped = same_completions(notes, stop_after(2))
    ended(site.start(output, four, *PROMPTS_PER_STEP[4], fault=stopped), 75, 75, 75, 75)
    log = ended(site.start(output, Layout(), *PROMPTS_PER_STEP[1]), 2)
    assert "FSDP wrote it, and DDP cannot read it; launch with the same configuration" in log, log
    log = ended(site.start(output, two, *PROMPTS_PER_STEP[2], fault=same_completions(notes)), 0, 0)
    assert "4 processes then, 2 now: every step keeps its questions" in log, log
    assert questions(notes) == questions(site.folder / "undivided")
    require_near({entry["step"]: entry for entry in logged(output) if "loss" in entry}, expected)


def supervised(site: Site) -> None:
    """SFT, stopped in its second epoch: the questions of a step are known by their loss."""
    whole, output = site.fresh(), site.fresh()
    ended(start_sft(site, whole, 2), 0, 0)
    expected = {entry["step"]: entry for entry in logged(whole) if "loss" in entry}
    losses = sorted(entry["loss"] for entry in expected.values())
    assert min(after - before for before, after in pairwise(losses)) > 1e-4, losses
    ended(start_sft(site, output, 2, stop_after(5)), 75, 75)
    log = ended(start_sft(site, output, 1), 0)
    assert "2 processes then, 1 now: every step keeps its questions, but for those repeated to fill" in log, log
    assert "completions" not in log.partition("2 processes then")[2].partition("\n")[0]
    require_near({entry["step"]: entry for entry in logged(output) if "loss" in entry}, expected)


def start_sft(site: Site, output: Path, processes: int, fault: Callable[[int], None] | None = None) -> ForkedRun:
    """Eight steps of SFT, with two questions each on two processes."""
    flags = f"{SFT_FLAGS} --output_dir {output}"
    flags += f" --model_name_or_path {site.folder / 'base'} --dataset_name {site.folder / 'data'}"
    return start(flags.split(), output.with_suffix(".log"), processes, fault, train_sft)


def require_near(entries: Entries, expected: Entries) -> None:
    """All steps are there, with the loss and the gradient of an uninterrupted run up to the order of summation."""
    assert sorted(entries) == sorted(expected)
    for step, entry in entries.items():
        assert entry["num_tokens"] == expected[step]["num_tokens"], (entry, expected[step])
        assert abs(entry["loss"] - expected[step]["loss"]) < 1e-5, (entry, expected[step])
        assert abs(entry["grad_norm"] / expected[step]["grad_norm"] - 1) < 1e-4, (entry, expected[step])


def sampled_anew(site: Site) -> None:
    """With completions in earnest the same command goes on with fewer processes too, and says why results differ.

    A step keeps its prompts, after a second interruption too; with other flags for the same processes none is guessed.
    """
    output, command = site.fresh(), ("--gradient_accumulation_steps", "1")
    ended(site.start(output, Layout(2), *command, fault=stop_after(3)), 75, 75)
    log = ended(site.start(output, Layout(), *command, fault=stop_after(4)), 75)
    line = "--gradient_accumulation_steps 2 instead of 1 on 1 process: a step keeps its 2 prompts"
    assert line in log, log
    assert "completions are drawn with other random numbers, and gradients are summed in another order" in log, log
    assert "1 prompts per device x 1 devices x 2 accumulation = 2 prompts" in log, log
    refused = ended(site.start(output, Layout(), "--gradient_accumulation_steps", "4"), 2)
    assert "prompts_per_step was 2, is 4" in refused, refused
    again = ended(site.start(output, Layout(), *command), 0).removeprefix(refused)
    assert line in again, again


def other_steps(site: Site) -> None:
    """What cannot be divided anew is refused with the way out."""
    output = site.fresh()
    ended(site.start(output, Layout(2), fault=stop_after(3)), 75, 75)
    log = ended(site.start(output, Layout(), "--per_device_train_batch_size", "4"), 2)
    assert "with 4 each; lower --per_device_train_batch_size)" in log, log
    log = ended(site.start(output, Layout(), "--gradient_accumulation_steps", "1", "--steps_per_generation", "2"), 2)
    assert "completions are used for several steps, whose questions would change" in log, log
    sharded = site.fresh()
    ended(site.start(sharded, Layout(2, stage=2), fault=stop_after(2)), 75, 75)
    log = ended(site.start(sharded, Layout()), 2)
    assert "a checkpoint of ZeRO-2 can only be loaded by the same number of processes" in log, log


SCENARIOS: dict[str, Callable[[Site], None]] = {
    step.__name__: step
    for step in (
        longer,
        rates,
        between_uses,
        nothing_to_go_on_from,
        processes,
        divided_weights,
        supervised,
        sampled_anew,
        other_steps,
    )
}


def run_scenario(name: str, folder: Path) -> None:
    """A scenario, in a process that may fork."""
    SCENARIOS[name](Site(folder))
