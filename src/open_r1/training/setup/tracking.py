"""Logging of a training run: always to metrics.jsonl in its folder, and to the trackers of `--report_to`.

The data is medical. Trackers get numbers and settings; prompts and completions only with `--log_completions`, as text;
images never. wandb's recording of console, code, git state, command and machine is off unless its environment
variables turn it on.
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
    "trackio": "pip install trackio (which needs an older pillow than requirements.txt)",
}

_ON = ("1", "true", "yes", "on")
# wandb 0.31 reads these as settings; names with two underscores are its settings `x_...`.
_QUIET_WANDB = {
    "WANDB_CONSOLE": "off",  # TRL prints prompts and completions there
    "WANDB_DISABLE_CODE": "true",
    "WANDB_DISABLE_GIT": "true",
    "WANDB__DISABLE_META": "true",  # command line, user, host, paths; run.json records the relevant ones
    "WANDB__SAVE_REQUIREMENTS": "false",
}


def prepare_trackers(training: Any) -> None:
    """Check `--report_to` before anything is loaded, and limit what trackers record.

    Args:
        training: training arguments; `notes` may gain lines.

    Raises:
        UserError: if a tracker is not supported or not installed, or images would be uploaded.
    """
    trackers = list(training.report_to or [])
    for name in trackers:
        if name not in PACKAGES:
            raise UserError(f"--report_to {name} is not supported; choose from {', '.join(PACKAGES)} and none")
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"--report_to {name} needs the package {name}, which is not installed: {PACKAGES[name]}, or leave the "
                "flag out; metrics.jsonl in the output folder has the same numbers"
            )
    if getattr(training, "log_multimodal", False):
        raise UserError(
            "--log_multimodal would upload patients' images and is not supported; --log_completions alone logs "
            "prompts and completions as text"
        )
    if "wandb" in trackers:
        for name, value in _QUIET_WANDB.items():
            os.environ.setdefault(name, value)
        _use_offline_mode_without_login(training)
    if getattr(training, "log_completions", False):
        _require_private_destinations(training)
    if trackers and getattr(training, "log_completions", False):
        training.notes.append(
            f"--log_completions: prompts and completions go to {', '.join(trackers)}, as text, without images"
        )


def _require_private_destinations(training: Any) -> None:
    """Refuse to log completions to a hub destination that is offline or public."""
    if training.log_completions_hub_repo and os.environ.get("HF_HUB_OFFLINE", "0").lower() in _ON:
        raise UserError("--log_completions_hub_repo needs the hub, but HF_HUB_OFFLINE is set; drop one of them")
    space = training.trackio_space_id or training.trackio_static_space_id
    if "trackio" in training.report_to and space and not training.hub_private_repo:
        raise UserError(
            f"--log_completions would send questions of patients to the space {space}, which is public without "
            "--hub_private_repo true; add it, or leave one of them out"
        )


@contextmanager
def completions_repository(training: Any, public: bool) -> Iterator[None]:
    """Let TRL send completions to a private data set on the hub, or to a public one if `public` is set.

    TRL 1.16 creates it when a trainer is built, by `hub_private_repo`, whose default is public.

    Args:
        training: training arguments; `log_completions_hub_repo` names the data set.
        public: whether everybody may read it.

    Raises:
        UserError: on all processes, if the data set cannot be created or is already public.
    """
    repository = training.log_completions_hub_repo
    if not (repository and training.log_completions):
        if public:
            raise UserError("--log_completions_publicly does nothing without --log_completions_hub_repo; leave it out")
        yield
        return
    problem = None
    if training.process_index == 0:
        try:
            _create_completions_repository(repository, training.hub_token, public)
        except UserError as error:
            problem = str(error)
    stop_everywhere(problem, training.device)
    original, training.hub_private_repo = training.hub_private_repo, not public
    try:
        with hub_errors(repository, None):
            yield
    finally:
        training.hub_private_repo = original


def _create_completions_repository(repository: str, token: str | None, public: bool) -> None:
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with hub_errors(repository, None):
        name = api.create_repo(repository, repo_type="dataset", private=not public, exist_ok=True).repo_id
        is_private = api.repo_info(name, repo_type="dataset").private
    if not is_private and not public:
        raise UserError(
            f"--log_completions_hub_repo {name} is public, and questions of patients would be sent there: "
            "make it private, name another, or add --log_completions_publicly true"
        )
    readers = "you and those with access" if is_private else "EVERYBODY"
    print(
        f"--log_completions_hub_repo: prompts and completions go to the data set {name}, which can be read by {readers}"
    )


def _use_offline_mode_without_login(training: Any) -> None:
    """Let wandb record to a local folder if nobody is logged in: a tracker must not stop a run."""
    if os.environ.get("WANDB_MODE") or _wandb_login():
        return
    os.environ["WANDB_MODE"] = "offline"
    training.notes.append(
        "--report_to wandb: nobody is logged in, so the run is recorded in ./wandb "
        "(upload it with `wandb sync wandb/offline-*`)"
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


# --- resumed runs -----------------------------------------------------------------------------------------------------


def tracker_ids(training: Any, earlier: Mapping[str, Any]) -> dict[str, str]:
    """Id of the run in each tracker, which run.json records.

    Args:
        training: training arguments; sets `run_name` for trackio if it has none.
        earlier: run record of a resumed run, empty for a new one.

    Returns:
        For wandb the run's id, for tensorboard a folder below the run's, for trackio the run's name.
    """
    earlier_ids = dict(earlier.get("trackers") or {})
    new = {
        "wandb": os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4),
        "tensorboard": os.environ.get("TENSORBOARD_LOGGING_DIR") or default_logdir(),
        "trackio": training.run_name or f"{Path(training.output_dir).resolve().name}-{secrets.token_hex(4)}",
    }
    ids = earlier_ids | {name: new[name] for name in new if name in training.report_to and name not in earlier_ids}
    if "trackio" in training.report_to and training.run_name is None:
        training.run_name = ids["trackio"]
    return ids


def join_trackers(trainer: Any, ids: Mapping[str, str], step: int) -> None:
    """Let the trackers continue the runs with these ids. Call before training.

    Args:
        trainer: the trainer.
        ids: from `tracker_ids`.
        step: step of the checkpoint that training resumes from; tensorboard's entries of later steps are replaced.
    """
    for callback in trainer.callback_handler.callbacks if trainer.is_world_process_zero() else ():
        if isinstance(callback, WandbCallback) and callback._wandb.run is None:
            # as in transformers 5.17, but with this id; an id in the environment would be read only once per process
            project, name = os.environ.get("WANDB_PROJECT", "huggingface"), trainer.args.run_name
            callback._wandb.init(project=project, name=name, id=ids["wandb"], resume="allow")
        if isinstance(callback, TensorBoardCallback):
            callback.logging_dir = os.path.join(trainer.args.output_dir, ids["tensorboard"])
            callback.tb_writer = callback._SummaryWriter(log_dir=callback.logging_dir, purge_step=step + 1)


class MetricsLog(TrainerCallback):
    """Writes every log entry to metrics.jsonl of the output folder; a resumed run appends after its checkpoint's."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            begin_metrics(args.output_dir, state.log_history)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero and state.log_history:
            append_metrics(args.output_dir, state.log_history[-1])


class CompletionsAsText(TrainerCallback):
    """Turns the messages of `--log_completions` into text before TRL passes them to a tracker.

    wandb's tables refuse a column of messages with different content types, as questions with an image have: TRL 1.16
    would end the run with a TypeError at the first log.

    Args:
        trainer: the trainer whose log is changed.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for column in ("prompt", "completion"):
            logged: deque = self.trainer._logs[column]
            texts = [as_text(messages) for messages in logged]
            logged.clear()
            logged.extend(texts)


def as_text(messages: Any) -> str:
    """The text of a conversation, without roles; an image as `[image]`."""
    if isinstance(messages, str):
        return messages
    return "\n".join(_content_text(message.get("content")) for message in messages)


def _content_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(block.get("text", f"[{block.get('type')}]") for block in content or [])
