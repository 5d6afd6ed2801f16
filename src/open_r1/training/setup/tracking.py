"""What a training run tells, and to whom: metrics.jsonl in its folder always, and the trackers that were asked for.

The data is medical. A tracker gets numbers and settings; of prompts and completions it gets the text, and only with
`--log_completions`; images never. wandb's habit of recording the console, the code, the git state, the command and
the machine is off unless its own environment variables say otherwise.
"""

import importlib.util
import os
import secrets
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations.integration_utils import TensorBoardCallback, WandbCallback, default_logdir

from open_r1.checkpoints.hub import hub_errors
from open_r1.common.errors import UserError
from open_r1.common.metrics_log import append_metrics, begin_metrics
from open_r1.modeling.agreement import stop_everywhere

PACKAGES = {
    "wandb": "pip install wandb",
    "tensorboard": "pip install '.[tracking]'",
    "trackio": "pip install trackio (which takes an older pillow than requirements.txt names)",
}

_ON = ("1", "true", "yes", "on")
# wandb 0.31 reads each as the setting of that name; two underscores begin one that it writes `x_`.
_QUIET_WANDB = {
    "WANDB_CONSOLE": "off",  # TRL prints prompts and completions there
    "WANDB_DISABLE_CODE": "true",
    "WANDB_DISABLE_GIT": "true",
    "WANDB__DISABLE_META": "true",  # command line, user, host, paths; run.json has what matters of it
    "WANDB__SAVE_REQUIREMENTS": "false",
}


def prepare_trackers(training: Any) -> None:
    """Check `--report_to` before anything is loaded, and set the trackers to tell no more than they must.

    Args:
        training: training arguments; `notes` may gain lines.

    Raises:
        UserError: a tracker that is not supported or not installed, or images that would be uploaded.
    """
    trackers = list(training.report_to or [])
    for name in trackers:
        if name not in PACKAGES:
            raise UserError(f"--report_to {name} is not supported; choose from {', '.join(PACKAGES)} and none")
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"--report_to {name} needs the package {name}, which is not installed: {PACKAGES[name]}, or leave the "
                "flag out; metrics.jsonl in the output folder holds the same numbers"
            )
    if getattr(training, "log_multimodal", False):
        raise UserError(
            "--log_multimodal would upload patients' images; nothing here does that. --log_completions alone logs "
            "prompts and completions as text"
        )
    if "wandb" in trackers:
        for name, value in _QUIET_WANDB.items():
            os.environ.setdefault(name, value)
        _without_login(training)
    if getattr(training, "log_completions", False):
        _require_private_places(training)
    if trackers and getattr(training, "log_completions", False):
        training.notes.append(
            f"--log_completions: prompts and completions go to {', '.join(trackers)}, as text, without images"
        )


def _require_private_places(training: Any) -> None:
    """Refuse to log completions to a place on the hub that cannot be reached, or that everybody can read."""
    if training.log_completions_hub_repo and os.environ.get("HF_HUB_OFFLINE", "0").lower() in _ON:
        raise UserError(
            "--log_completions_hub_repo needs the hub, and HF_HUB_OFFLINE switches it off; unset one of them"
        )
    space = training.trackio_space_id or training.trackio_static_space_id
    if "trackio" in training.report_to and space and not training.hub_private_repo:
        raise UserError(
            f"--log_completions would send questions of patients to the space {space}, which everybody can read unless "
            "--hub_private_repo true is given; add it, or leave one of them out"
        )


@contextmanager
def completions_repository(training: Any, publicly: bool) -> Iterator[None]:
    """Have TRL send completions to a data set on the hub that is private, unless that was asked for twice.

    TRL 1.16 creates it when a trainer is built, with the privacy of `hub_private_repo`: public where nothing is said.

    Args:
        training: training arguments; `log_completions_hub_repo` names the data set.
        publicly: whether everybody may read it.

    Raises:
        UserError: on all processes, if the data set cannot be created or everybody can read it already.
    """
    repository = training.log_completions_hub_repo
    if not (repository and training.log_completions):
        if publicly:
            raise UserError("--log_completions_publicly does nothing without --log_completions_hub_repo; leave it out")
        yield
        return
    problem = None
    if training.process_index == 0:
        try:
            _create_completions_repository(repository, training.hub_token, publicly)
        except UserError as error:
            problem = str(error)
    stop_everywhere(problem, training.device)
    asked, training.hub_private_repo = training.hub_private_repo, not publicly
    try:
        with hub_errors(repository, None):
            yield
    finally:
        training.hub_private_repo = asked


def _create_completions_repository(repository: str, token: str | None, publicly: bool) -> None:
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with hub_errors(repository, None):
        name = api.create_repo(repository, repo_type="dataset", private=not publicly, exist_ok=True).repo_id
        is_private = api.repo_info(name, repo_type="dataset").private
    if not is_private and not publicly:
        raise UserError(
            f"--log_completions_hub_repo {name} can be read by everybody, and questions of patients would go there: "
            "make it private, name another, or add --log_completions_publicly true"
        )
    readers = "you and those you let in" if is_private else "EVERYBODY"
    print(f"--log_completions_hub_repo: prompts and completions go to the data set {name}; it is read by {readers}")


def _without_login(training: Any) -> None:
    """Send wandb to a local folder if nobody is logged in: a tracker must not end a run before it has begun."""
    if os.environ.get("WANDB_MODE") or _wandb_login():
        return
    os.environ["WANDB_MODE"] = "offline"
    training.notes.append(
        "--report_to wandb: nobody is logged in, so the run is recorded in ./wandb "
        "(`wandb sync wandb/offline-*` sends it)"
    )


def _wandb_login() -> bool:
    import netrc

    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        hosts: Any = netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return any("wandb" in host for host in hosts)


# --- one run, however often it is continued --------------------------------------------------------------------------


def tracker_ids(training: Any, earlier: Mapping[str, Any]) -> dict[str, str]:
    """By which name each tracker knows the run; run.json keeps it.

    Args:
        training: training arguments; trackio's `run_name` is set where it has none.
        earlier: run.json of the run that is continued, empty for a new one.

    Returns:
        Of wandb the run's id, of tensorboard the folder below the run's own, of trackio the run's name.
    """
    known = dict(earlier.get("trackers") or {})
    new = {
        "wandb": os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4),
        "tensorboard": os.environ.get("TENSORBOARD_LOGGING_DIR") or default_logdir(),
        "trackio": training.run_name or f"{Path(training.output_dir).resolve().name}-{secrets.token_hex(4)}",
    }
    ids = known | {name: new[name] for name in new if name in training.report_to and name not in known}
    if "trackio" in training.report_to and training.run_name is None:
        training.run_name = ids["trackio"]
    return ids


def join_trackers(trainer: Any, ids: Mapping[str, str], step: int) -> None:
    """Have the trackers go on with the runs of these ids; before training begins.

    Args:
        trainer: whose trackers they are.
        ids: of `tracker_ids`.
        step: that the training goes on from; what tensorboard had of later steps, which are made again, is replaced.
    """
    for callback in trainer.callback_handler.callbacks if trainer.is_world_process_zero() else ():
        if isinstance(callback, WandbCallback) and callback._wandb.run is None:
            # as transformers 5.17 would begin it; an id from the environment is read once per process, this one always
            project, name = os.environ.get("WANDB_PROJECT", "huggingface"), trainer.args.run_name
            callback._wandb.init(project=project, name=name, id=ids["wandb"], resume="allow")
        if isinstance(callback, TensorBoardCallback):
            callback.logging_dir = os.path.join(trainer.args.output_dir, ids["tensorboard"])
            callback.tb_writer = callback._SummaryWriter(log_dir=callback.logging_dir, purge_step=step + 1)


class MetricsLog(TrainerCallback):
    """Writes every log entry to metrics.jsonl of the output folder; a continued run goes on after its checkpoint."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            begin_metrics(args.output_dir, state.log_history)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero and state.log_history:
            append_metrics(args.output_dir, state.log_history[-1])


class CompletionsAsText(TrainerCallback):
    """Turns what `--log_completions` logs into text before TRL hands it to a tracker.

    wandb's tables refuse a column of messages whose parts differ, as those of a question with an image do: TRL 1.16
    ends a run with a TypeError at the first log.

    Args:
        trainer: whose log is meant.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for column in ("prompt", "completion"):
            logged: deque = self.trainer._logs[column]
            texts = [as_text(each) for each in logged]
            logged.clear()
            logged.extend(texts)


def as_text(messages: Any) -> str:
    """A conversation as text: what each message says, without roles; an image as `[image]`."""
    if isinstance(messages, str):
        return messages
    return "\n".join(_said(message.get("content")) for message in messages)


def _said(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", f"[{part.get('type')}]") for part in content or [])
