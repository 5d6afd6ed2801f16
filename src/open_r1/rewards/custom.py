"""Rewards of one's own: `my_package.my_reward` or `my_file.py:my_reward`, checked before anything is loaded."""

import copy
import hashlib
import importlib
import importlib.util
import inspect
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

from open_r1.common.errors import UserError
from open_r1.rewards.settings import Reward

_COMPLETIONS = ("<think>The left lung is opaque.</think><answer>A</answer>", "I do not know.")
_ROW: dict[str, Any] = {
    **{"problem": "What is it? A)CT, B)MRI", "solution": "<answer> A </answer>", "answer_type": "choice"},
    **{"aliases": [], "images": [], "id": "dry call", "source": "", "modality": None, "task": None, "subject": None},
}
"""The columns of a question (`data.arrow_sets.QUESTION_FEATURES`) for the dry call."""


@dataclass(frozen=True)
class CustomReward:
    """A reward function that the user wrote."""

    name: str
    """As on the command line."""
    function: Reward
    path: Path
    """The file that holds it."""
    sha256: str
    """Of that file, as it was when the function was loaded."""


def is_custom(name: str) -> bool:
    """Whether a name of `--reward_funcs` names a module or a file."""
    return "." in name or ":" in name


@lru_cache(maxsize=64)
def load_custom(name: str) -> CustomReward:
    """Import a reward function and call it with two made-up completions.

    Args:
        name: `my_package.my_reward` or `my_file.py:my_reward`; packages are also looked for in the working folder.

    Raises:
        UserError: it cannot be imported, is no function of TRL's signature, or does not return one finite number or
            None for each completion.
    """
    module, attribute = _module_of(name)
    function = getattr(module, attribute, None)
    if function is None:
        defined = ", ".join(key for key, value in vars(module).items() if _is_own_function(module, value))
        raise UserError(
            f"--reward_funcs {name}: {_file_of(module)} does not define {attribute!r}"
            + (f"; its functions are {defined}" if defined else "; define the function there")
        )
    _require_signature(name, function)
    _require_values(name, function)
    path = _file_of(module)
    return CustomReward(name, function, path, hashlib.sha256(path.read_bytes()).hexdigest())


def _module_of(name: str) -> tuple[ModuleType, str]:
    source, colon, attribute = name.rpartition(":")
    if not colon:
        source, _, attribute = name.rpartition(".")
    if not source or not attribute.isidentifier():
        raise UserError(
            f"--reward_funcs {name!r} names no function; write my_package.my_reward or my_file.py:my_reward"
        )
    if source.endswith(".py"):
        return _module_in_file(name, Path(source)), attribute
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        return importlib.import_module(source), attribute
    except (Exception, SystemExit) as error:
        raise UserError(
            f"--reward_funcs {name}: {source} cannot be imported ({type(error).__name__}: {one_line(error)}); mend it, "
            "or name a file as my_file.py:my_reward"
        ) from error


def _module_in_file(name: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"--reward_funcs {name}: there is no file {path}; give its path from the working folder")
    path = path.resolve()
    unique = f"_reward_file_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    if unique in sys.modules:
        return sys.modules[unique]
    spec = importlib.util.spec_from_file_location(unique, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # so that it may import its neighbours
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[unique]
        raise UserError(
            f"--reward_funcs {name}: {path} cannot be run ({type(error).__name__}: {one_line(error)}); mend it"
        ) from error
    return module


def _is_own_function(module: ModuleType, value: Any) -> bool:
    return inspect.isfunction(value) and value.__module__ == module.__name__


def _file_of(module: ModuleType) -> Path:
    if not getattr(module, "__file__", None):
        raise UserError(f"{module.__name__} has no file, so a reward from it cannot be recorded; put it into a file")
    return Path(str(module.__file__))


def _require_signature(name: str, function: Any) -> None:
    if not callable(function) or inspect.isclass(function):
        raise UserError(f"--reward_funcs {name} is {type(function).__name__}, not a function; name a function")
    if not hasattr(function, "__name__"):
        raise UserError(f"--reward_funcs {name} has no name to be logged by; define it with def")
    if inspect.iscoroutinefunction(function):
        raise UserError(f"--reward_funcs {name} is async; write a plain function that returns a list")
    kinds = {key: parameter.kind for key, parameter in inspect.signature(function).parameters.items()}
    takes_all = inspect.Parameter.VAR_KEYWORD in kinds.values()
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    if kinds.get("completions") not in by_name or not takes_all:
        raise UserError(
            f"--reward_funcs {name} takes ({', '.join(kinds)}); it is called by keyword with completions and every "
            "column of the data set, so define it as (completions, **kwargs)"
        )


def _require_values(name: str, function: Callable[..., Any]) -> None:
    count = len(_COMPLETIONS)
    columns = {key: [value] * count for key, value in _ROW.items()}
    arguments = {
        "prompts": [[{"role": "user", "content": _ROW["problem"]}]] * count,
        "completions": [[{"role": "assistant", "content": text}] for text in _COMPLETIONS],
        "completion_ids": [[1, 2, 3]] * count,
        **columns,
    }
    untouched = copy.deepcopy(arguments)
    try:
        values = function(
            trainer_state=None,
            log_extra=lambda *_: None,
            log_metric=lambda *_: None,
            **arguments,
        )
        problem = values_problem(values, count)
        if problem is None and arguments != untouched:
            changed = ", ".join(key for key, value in arguments.items() if value != untouched[key])
            problem = f"changes its arguments ({changed}), which the other rewards see too"
    except (Exception, SystemExit) as error:
        problem = f"raised {type(error).__name__}: {one_line(error)}"
    if problem is not None:
        raise UserError(
            f"--reward_funcs {name} {problem}, on a dry call with two made-up completions (lists with one message "
            f"each) and the columns {', '.join(_ROW)}; it must return one finite number or None for each completion"
        )


def one_line(error: BaseException) -> str:
    """The beginning of an error's text in one line."""
    return " ".join(f"{error!s:.400}".split())[:200]


def values_problem(values: Any, count: int) -> str | None:
    """What is wrong with the values of a reward for `count` completions; None if nothing is."""
    if not isinstance(values, Sequence) and not hasattr(values, "tolist"):
        return f"returned {type(values).__name__} and no list"
    values = values.tolist() if not isinstance(values, Sequence) else values
    if isinstance(values, str) or not isinstance(values, Sequence):
        return f"returned {type(values).__name__} and no list"
    if len(values) != count:
        return f"returned {len(values)} values for {count} completions"
    present = [value for value in values if value is not None]
    others = [value for value in present if not isinstance(value, Real) and not hasattr(value, "item")]
    if others:
        return f"returned {others[0]!r:.100}, which is no number"
    invalid = [value for value in present if not math.isfinite(float(value))]
    if invalid:
        return f"gave {invalid[0]} for {len(invalid)} of {count} completions"
    return None


def records_of(names: Sequence[str]) -> list[dict[str, str]]:
    """Name, file and SHA-256 of each custom reward among `names`, for run.json."""
    loaded = [load_custom(name) for name in names if is_custom(name)]
    return [{"name": reward.name, "file": str(reward.path), "sha256": reward.sha256} for reward in loaded]
