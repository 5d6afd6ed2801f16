"""Rules by which a run's log shows that its training goes wrong, in one table.

A rule reads logged numbers alone, so the state of all alarms follows from the log, also in a continued run. Thresholds
are chosen so that clean runs stay quiet (docs/training.md). Imports no large library: the command line names alarms.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from open_r1.rewards.settings import CORRECTNESS

Log = Sequence[Mapping[str, Any]]
"""Log entries of training steps, each with `step`."""

START, RECENT = 10, 5  # steps at the beginning that later ones are compared with, and steps that count as now
SPIKE_AFTER = 10  # steps that a usual size is known from
QUIET = 10  # steps without its condition, after which an alarm can fire again
NO_GAIN = 0.05  # accuracy
RIGHT_WITHOUT_IMAGE = "probe/right_without_image"
REMEMBERED = 60  # entries
LEARNED = 0.9  # accuracy from which groups are dead because all answers are right

FORMATS = ("format", "soft_format", "strict_format", "tag_count")
AGAINST_REASONING, LETTER_EXCESS = "answers/against_reasoning", "answers/letter_excess"


@dataclass(frozen=True)
class Alarm:
    """One rule: it fires where its measure of the log reaches the threshold."""

    name: str
    watches: str
    threshold: float
    source: str
    message: str
    """What the log line says; `{value}` is the measure."""
    measure: Callable[[Log], float | None]
    """None: there is nothing to compare yet, or another condition does not hold."""


def _values(log: Log, key: str) -> Iterator[tuple[int, float]]:
    for entry in log:
        if isinstance(value := entry.get(key), int | float):
            yield entry["step"], value


def _first(log: Log, key: str) -> list[float]:
    """The values of the first steps; the first value where entries are rarer."""
    values = list(_values(log, key))
    return [value for step, value in values if step <= START] or [value for _, value in values[:1]]


def _last(log: Log, key: str, steps: int = RECENT) -> list[float]:
    """The values of the last steps, once they are later than the first ones; at least the newest value."""
    if not log or log[-1]["step"] <= START:
        return []
    values = list(_values(log, key))
    recent = [value for step, value in values if step > max(log[-1]["step"] - steps, START)]
    return recent or [value for _, value in values[-1:]]


def _rise(log: Log, key: str | None, steps: int = RECENT) -> float | None:
    """How much the mean is above that of the first steps."""
    first, last = (_first(log, key), _last(log, key, steps)) if key else ([], [])
    return fmean(last) - fmean(first) if first and last else None


def _key(log: Log, names: Sequence[str]) -> str | None:
    """The log's entry of the first of these rewards that it has."""
    keys = log[-1].keys() if log else ()
    return next((key for name in names if (key := f"rewards/{name}_reward/mean") in keys), None)


def _gains(log: Log) -> bool:
    """Whether accuracy, or without it the reward, has risen."""
    gain = _rise(log, _key(log, CORRECTNESS) or "reward", START)
    return gain is not None and gain > NO_GAIN


def _recent_mean(key: str, steps: int = RECENT) -> Callable[[Log], float | None]:
    def measure(log: Log) -> float | None:
        values = _last(log, key, steps)
        return fmean(values) if values else None

    return measure


def _fall(key: str) -> Callable[[Log], float | None]:
    """By what factor a number has fallen from its largest early value while nothing was gained."""

    def measure(log: Log) -> float | None:
        first, last = _first(log, key), _last(log, key)
        return max(first) / max(fmean(last), 1e-6) if first and last and not _gains(log) else None

    return measure


def _spike(key: str, least: float) -> Callable[[Log], float | None]:
    """The newest value as a multiple of the 90th percentile of earlier ones; None below `least`."""

    def measure(log: Log) -> float | None:
        values = list(_values(log, key))
        if len(values) < 3 or values[-1][0] != log[-1]["step"] or values[-2][0] < SPIKE_AFTER:
            return None
        earlier = sorted(value for _, value in values[-51:-1])
        usual = earlier[int(0.9 * (len(earlier) - 1))]
        return values[-1][1] / max(usual, 1e-6) if values[-1][1] >= least else None

    return measure


def _format_gain(log: Log) -> float | None:
    if not log or log[-1]["step"] < 2 * START:
        return None
    gain = _rise(log, _key(log, CORRECTNESS), START)
    return _rise(log, _key(log, FORMATS), START) if gain is not None and gain <= NO_GAIN / 2 else None


def _steps_without_reward(log: Log) -> float | None:
    keys = ["reward_std", *rewards_in(log)]
    earned = any(value > 0 for key in keys for _, value in _values(log, key))
    return log[-1]["step"] if len(keys) > 1 and not earned else None


def _dead_share(log: Log) -> float | None:
    accuracy, key = _key(log, CORRECTNESS), "frac_reward_zero_std"
    if accuracy is not None and (last := _last(log, accuracy)) and fmean(last) >= LEARNED:
        return None
    return _recent_mean(key, START)(log)


def rewards_in(log: Log) -> list[str]:
    """The entries of the means of all reward functions."""
    return [key for key in (log[-1] if log else {}) if key.startswith("rewards/") and key.endswith("/mean")]


ALARMS = (
    Alarm(
        "length_collapse", "completions/mean_length", 3.0, "DAPO, arXiv 2503.14476",
        "completions have become {value:.1f} times shorter and nothing was gained by it",
        _fall("completions/mean_length"),
    ),
    Alarm(
        "format_only", "rewards of the form against accuracy", 0.3, "Spurious Rewards, arXiv 2506.10947",
        "the reward for the form has risen by {value:.2f} while accuracy has not: the form is all that is learned",
        _format_gain,
    ),
    Alarm(
        "without_image", RIGHT_WITHOUT_IMAGE, 0.1, "VQA v2, arXiv 1612.00837",
        "the probability of the right letter without the image has risen by {value:.2f}: the answer is guessed from "
        "the question",
        lambda log: _rise(log, RIGHT_WITHOUT_IMAGE),
    ),
    Alarm(
        "against_reasoning", AGAINST_REASONING, 0.3, "Turpin et al., arXiv 2305.04388",
        "{value:.0%} of the completions whose thoughts argue for a letter answer another",
        _recent_mean(AGAINST_REASONING),
    ),
    Alarm(
        "no_reward", "rewards/*/mean", 20, "DeepSeekMath (GRPO), arXiv 2402.03300",
        "no completion has earned anything in {value:.0f} steps, so there is nothing to learn from",
        _steps_without_reward,
    ),
    Alarm(
        "entropy_collapse", "entropy", 10.0, "Cui et al., arXiv 2505.22617",
        "entropy has fallen to 1/{value:.0f} and nothing was gained by it: completions are all alike",
        _fall("entropy"),
    ),
    Alarm(
        "kl_spike", "kl", 10.0, "Gao et al., arXiv 2210.10760",
        "KL to the starting model is {value:.0f} times what was usual", _spike("kl", 0.1),
    ),
    Alarm(
        "gradient_spike", "grad_norm", 10.0, "Spike No More, arXiv 2312.16903",
        "the gradient's norm is {value:.0f} times what was usual", _spike("grad_norm", 1.0),
    ),
    Alarm(
        "dead_groups", "frac_reward_zero_std", 0.8, "DAPO, arXiv 2503.14476",
        "in {value:.0%} of the groups all completions earn the same, so they teach nothing; see --resample_dead_groups",
        _dead_share,
    ),
    Alarm(
        "letter_favoured", LETTER_EXCESS, 0.5, "Zheng et al., arXiv 2309.03882",
        "one letter is answered {value:.0%} of all times more often than it is right",
        _recent_mean(LETTER_EXCESS, START),
    ),
    Alarm(
        "sampler_drift", "sampling/sampling_logp_difference/mean", 0.1, "fengyao.notion.site/off-policy-rl",
        "log-probabilities of sampler and trainer differ by {value:.2f} a token on average",
        _recent_mean("sampling/sampling_logp_difference/mean"),
    ),
)  # fmt: skip
NAMES = tuple(alarm.name for alarm in ALARMS)


class AlarmStates:
    """Which alarms have their condition, followed entry by entry."""

    def __init__(self) -> None:
        self._log: list[Mapping[str, Any]] = []  # the entries that rules look at
        self._seen: set[tuple[str, bool]] = set()
        self._stays: set[int] = set()  # steps of entries that are never forgotten
        self._last_true: dict[str, int] = {}  # name -> step

    def add(self, entry: Mapping[str, Any]) -> list[tuple[Alarm, float]]:
        """Take a log entry; returns the alarms that fire, with their measures. Entries without a loss do not count."""
        if "loss" not in entry:
            return []
        before = self._log[-1]["step"] if self._log else 0
        self._log.append(entry)
        self._forget()
        fired = []
        for alarm in ALARMS:
            value = alarm.measure(self._log)
            if value is None or value < alarm.threshold:
                continue
            last = self._last_true.get(alarm.name)
            if last is None or (last < before and entry["step"] - last > QUIET):
                fired.append((alarm, value))
            self._last_true[alarm.name] = entry["step"]
        return fired

    def _forget(self) -> None:
        """Let go of entries but the first steps, the first of each number, also of each above 0, and the newest."""
        entry = self._log[-1]
        marks = {(key, isinstance(value, int | float) and value > 0) for key, value in entry.items()}
        if entry["step"] <= START or marks - self._seen:
            self._seen |= marks
            self._stays.add(entry["step"])
        if len(self._log) > REMEMBERED + len(self._stays):
            self._log.remove(next(entry for entry in self._log if entry["step"] not in self._stays))
