"""Publishes a trained checkpoint on the hub: only weights, configuration, processor and card."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from open_r1.checkpoints.hub import hub_errors
from open_r1.checkpoints.model_card import CARD, write_card
from open_r1.common.errors import UserError

# The files of an output folder that are published. run.json and similar files name paths and rows of the data.
PUBLISHED = ("*.safetensors", "*.json", "*.txt", "*.jinja", CARD)
KEPT_BACK = ("run.json", "trainer_state.json", "manifest.json", "all_results.json", "train_results.json", "*/*", ".*")


def take_over_push(training: Any) -> None:
    """Change `--push_to_hub` to publish the finished checkpoint once, without files that name rows or paths.

    transformers 5.17 would upload the complete output folder at every save: run.json, logged completions, pickles.

    Args:
        training: training arguments; `publish_to` becomes the repository, None without the flag.

    Raises:
        UserError: the hub is switched off by HF_HUB_OFFLINE.
    """
    training.publish_to = None
    if not training.push_to_hub:
        return
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        raise UserError("--push_to_hub needs the hub, and HF_HUB_OFFLINE switches it off; unset one of them")
    training.publish_to = training.hub_model_id or Path(training.output_dir or ".").resolve().name
    training.push_to_hub = False
    training.notes.append(f"--push_to_hub: {training.publish_to} gets weights and model card when training ends")


def open_repository(training: Any) -> None:
    """Create the repository to publish to before training starts, unless it exists.

    Raises:
        UserError: it cannot be created: no login, no permission, no network.
    """
    if training.publish_to:
        training.publish_to = created_repository(training.publish_to, training.hub_token, training.hub_private_repo)


def created_repository(repo: str, token: str | None, private: bool | None) -> str:
    """Create a repository on the hub unless it exists.

    Returns:
        Its full name, `org/repo`.

    Raises:
        UserError: it cannot be created: no login, no right, no network.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        with hub_errors(repo, None):
            return HfApi(token=token).create_repo(repo, private=private, exist_ok=True).repo_id
    except UserError as error:
        if isinstance(error.__cause__, HfHubHTTPError | LocalTokenNotFoundError):
            raise UserError(f"{repo} cannot be created on the hub ({error}); log in with `hf auth login`") from error
        raise UserError(f"the hub cannot be reached to publish {repo}: {error}") from error


def publish(folder: str | os.PathLike, repo: str, token: str | None = None) -> str:
    """Upload a checkpoint's weights, configuration, processor and card in one commit.

    Returns:
        The repository's address.

    Raises:
        UserError: the hub refuses or cannot be reached; the folder is as it was.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with hub_errors(repo, None):
        api.upload_folder(
            repo_id=repo,
            folder_path=Path(folder),
            allow_patterns=list(PUBLISHED),
            ignore_patterns=list(KEPT_BACK),
            commit_message="Trained checkpoint and model card",
        )
    return f"{api.endpoint}/{repo}"


def conclude(training: Any, story: Mapping[str, Any]) -> None:
    """Write the card of a finished run and, with --push_to_hub, publish the run. Only for the first process.

    Raises:
        UserError: publishing failed; the checkpoint and its card are in the output folder.
    """
    write_card(training.output_dir, story)
    if training.publish_to:
        print(f"published: {publish(training.output_dir, training.publish_to, training.hub_token)}")
