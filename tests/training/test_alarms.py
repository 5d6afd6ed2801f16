"""Alarms: each fires within 20 steps of what it watches for, once, and a clean run has none."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from open_r1.training.watching.alarms import ALARMS, NAMES, QUIET, REMEMBERED, AlarmStates

ONSET = 30

Entry = dict[str, Any]


def clean(step: int, noise: random.Random, every: int = 1) -> Entry:
    """One entry of a run that learns: accuracy 0.3 to 0.8 in 100 steps, with the noise of 16 completions a step."""
    progress = min(1.0, step / 100)
    accuracy = min(1.0, max(0.0, 0.3 + 0.5 * progress + noise.gauss(0, 0.1 / every**0.5)))
    form = min(1.0, 0.6 + 0.4 * step / 20)
    return {
        **{"step": step, "loss": noise.gauss(0, 0.01), "grad_norm": noise.lognormvariate(0, 0.5)},
        **{"rewards/accuracy_reward/mean": accuracy, "rewards/format_reward/mean": form, "reward": accuracy + form},
        **{"reward_std": 0.4, "kl": 0.05 * progress * noise.lognormvariate(0, 0.5), "entropy": 0.5 - 0.4 * progress},
        **{"completions/mean_length": 80 - 30 * progress + noise.gauss(0, 5)},
        **{"frac_reward_zero_std": min(1.0, max(0.0, 0.3 + 0.3 * progress + noise.gauss(0, 0.15)))},
        **{
            "probe/right_without_image": 0.3 + noise.gauss(0, 0.01),
            "answers/letter_excess": abs(noise.gauss(0.15, 0.1)),
            "answers/against_reasoning": abs(noise.gauss(0, 0.08)),
        },
        **{"sampling/sampling_logp_difference/mean": 0.012},
    }


def flat(entry: Entry, accuracy: float = 0.3) -> Entry:
    form = entry["rewards/format_reward/mean"]
    return entry | {"rewards/accuracy_reward/mean": accuracy, "reward": accuracy + form}


def earnless(entry: Entry) -> Entry:
    return entry | {key: 0.0 for key in entry if "reward" in key and "frac" not in key}


SICK: dict[str, tuple[int, Callable[[Entry], Entry]]] = {
    "without_image": (ONSET, lambda e: e | {"probe/right_without_image": 0.45}),
    "length_collapse": (ONSET, lambda e: flat(e) | {"completions/mean_length": 12.0}),
    "format_only": (1, lambda e: flat(e) | {"rewards/format_reward/mean": min(1.0, 0.05 * e["step"])}),
    "against_reasoning": (ONSET, lambda e: e | {"answers/against_reasoning": 0.5}),
    "no_reward": (1, earnless),
    "entropy_collapse": (ONSET, lambda e: flat(e) | {"entropy": 0.02}),
    "kl_spike": (ONSET, lambda e: e | {"kl": 4.0}),
    "gradient_spike": (ONSET, lambda e: e | {"grad_norm": 200.0}),
    "dead_groups": (ONSET, lambda e: flat(e) | {"frac_reward_zero_std": 0.95}),
    "letter_favoured": (ONSET, lambda e: e | {"answers/letter_excess": 0.75}),
    "sampler_drift": (ONSET, lambda e: e | {"sampling/sampling_logp_difference/mean": 0.3}),
}


def alarms_of(entries: list[Entry], states: AlarmStates | None = None) -> list[tuple[int, str]]:
    states = states or AlarmStates()
    return [(entry["step"], alarm.name) for entry in entries for alarm, _ in states.add(entry)]


def run(steps: int, seed: int = 0, every: int = 1) -> list[Entry]:
    noise = random.Random(seed)
    return [clean(step, noise, every) for step in range(every, steps + 1, every)]


def test_every_rule_of_the_table_is_tried_and_in_the_docs(repository: Path) -> None:
    rows = (repository / "docs" / "training.md").read_text().splitlines()
    for alarm in ALARMS:
        (row,) = [row for row in rows if row.startswith(f"| `{alarm.name}` |")]
        assert alarm.source.split()[-1] in row
    assert SICK.keys() == set(NAMES)
    assert len(set(NAMES)) == len(ALARMS)


@pytest.mark.parametrize("every", [1, 5, 10])
@pytest.mark.parametrize("name", NAMES)
def test_it_fires_within_twenty_steps_and_once(name: str, every: int) -> None:
    onset, spoil = SICK[name]
    entries = [spoil(entry) if entry["step"] >= onset else entry for entry in run(60, 1, every)]
    steps = [step for step, fired in alarms_of(entries) if fired == name]
    assert len(steps) == 1
    assert onset <= steps[0] < onset + 20 + (onset == 1)


@pytest.mark.slow
def test_clean_runs_are_quiet() -> None:
    """200 runs of 100 steps: of 22 hundred chances of a rule at most one fires."""
    fired = [alarm for seed in range(200) for alarm in alarms_of(run(100, seed))]
    assert len(fired) <= 1, fired


def test_a_shorter_form_that_pays_is_no_collapse() -> None:
    shorter = [e | {"completions/mean_length": 12.0 if e["step"] > 60 else 80.0} for e in run(100, 3)]
    assert alarms_of(shorter) == []
    sharper = [e | {"entropy": 0.5 / (1 + e["step"] / 8)} for e in run(100, 3)]
    assert alarms_of(sharper) == []


def test_groups_that_are_all_right_are_no_alarm() -> None:
    entries = [flat(e, 0.95) | {"frac_reward_zero_std": 0.97} for e in run(60)]
    assert alarms_of(entries) == []


def test_it_fires_again_once_it_has_been_quiet() -> None:
    spoil = SICK["against_reasoning"][1]
    sick = {*range(30, 41), 44, *range(70, 73)}  # a short pause is no quiet
    entries = [spoil(entry) if entry["step"] in sick else entry for entry in run(90)]
    first, second = [step for step, name in alarms_of(entries) if name == "against_reasoning"]
    assert 30 <= first <= 36
    assert 70 <= second <= 73
    assert second - 44 > QUIET


def test_a_continued_run_has_the_same_alarms() -> None:
    entries = [SICK["kl_spike"][1](e) if e["step"] >= ONSET else e for e in run(90)]
    whole, states = alarms_of(entries), AlarmStates()
    assert whole == [(ONSET, "kl_spike")]
    alarms_of(entries[:50], states)
    assert alarms_of(entries[50:], states) == []


@pytest.mark.slow
def test_long_runs_are_remembered_in_part() -> None:
    states, noise = AlarmStates(), random.Random(5)
    for step in range(1, 2001):
        entry = clean(min(step, 100), noise) | {"step": step}
        states.add(entry | ({"rare": 0.3} if step % 100 == 0 else {}))
    assert len(states._log) < REMEMBERED + 40
    assert [entry["step"] for entry in states._log[:10]] == list(range(1, 11))
    assert alarms_of([entry | {"step": 2001 + entry["step"]} for entry in run(5)], states) == []


def test_entries_without_a_training_step_do_not_count() -> None:
    states = AlarmStates()
    assert states.add({"step": 50, "eval_reward": 0.0}) == []
    assert states.add({"step": 50, "train_runtime": 1.0}) == []
    assert alarms_of([earnless(entry) for entry in run(19)], states) == []
    assert alarms_of([earnless(clean(20, random.Random(0)))], states) == [(20, "no_reward")]
