"""The model card of a trained checkpoint, and publishing it: what was trained on what, how, and how well it does.

The card is written into every output folder at the end of a run. It says nothing about single questions or pictures
and names no path of the machine. `python -m open_r1.model_card FOLDER --results FILE ...` writes it anew with the
accuracies of an evaluation, and `--push_to ORG/REPO` publishes it with the weights.
"""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from open_r1.checkpoint_names import ADAPTER, HUB_NAME
from open_r1.checkpoints import fingerprint, run_record
from open_r1.command_line import CommandParser
from open_r1.errors import UserError, run_command
from open_r1.evaluation.score import ResultFile, read_results
from open_r1.evaluation.sheets import markdown_code, markdown_table, markdown_text, percent, with_error
from open_r1.evaluation.tables import ALL, tabulate
from open_r1.files import write_atomically
from open_r1.hub_fetch import hub_errors
from open_r1.redaction import known_secrets, redacted, split_secrets

CARD = "README.md"
# What of an output folder is published. Not run.json and its like: they name paths and single rows of the data.
PUBLISHED = ("*.safetensors", "*.json", "*.txt", "*.jinja", CARD)
KEPT_BACK = ("run.json", "trainer_state.json", "manifest.json", "all_results.json", "train_results.json", "*/*", ".*")

_LICENCES = {
    "Qwen/Qwen2-VL-2B-Instruct": "apache-2.0",
    "Qwen/Qwen2-VL-7B-Instruct": "apache-2.0",
    "Qwen/Qwen2.5-VL-3B-Instruct": "other",  # the Qwen research licence
    "Qwen/Qwen2.5-1.5B-Instruct": "apache-2.0",
    "Qwen/Qwen2.5-7B-Instruct": "apache-2.0",
}
_METHODS = {"grpo": "GRPO (group relative policy optimisation)", "sft": "supervised fine-tuning"}


def write_card(folder: str | os.PathLike, story: Mapping[str, Any], results: Sequence[str | os.PathLike] = ()) -> Path:
    """Write README.md of a trained checkpoint.

    Args:
        folder: the checkpoint's.
        story: as run.json has it.
        results: result files of eval/infer.py, all of this checkpoint.

    Raises:
        UserError: a result file that is none, or is another checkpoint's.
    """
    path = Path(folder) / CARD
    files = [read_results(each) for each in results]
    if files:
        _refuse_others(Path(folder), files)
    write_atomically(path, card(story, files, is_adapter=(Path(folder) / ADAPTER).is_file()))
    return path


def _refuse_others(folder: Path, files: Sequence[ResultFile]) -> None:
    own = fingerprint(folder)
    for file in files:
        if file.manifest.get("checkpoint_sha256") != own:
            raise UserError(
                f"{file.path} holds answers of {file.manifest.get('checkpoint')}, whose weights are not those of "
                f"{folder}; a card must show the accuracy of its own weights"
            )


def card(story: Mapping[str, Any], files: Sequence[ResultFile] = (), is_adapter: bool = False) -> str:
    """The text of a model card.

    Args:
        story: as run.json has it.
        files: results of the checkpoint.
        is_adapter: whether the folder holds LoRA weights alone.
    """
    command = _words(str(story.get("command") or ""))
    story = redacted(story, known_secrets(story, words=command)) | {"command": public_command(shlex.join(command))}
    base = public_name(str(story.get("base_model") or ""))
    sections = [
        _front_matter(base, story, is_adapter),
        f"# {markdown_text(_title(base, story))}\n",
        _what_it_is(base, story, is_adapter),
        f"## Accuracy\n\n{_accuracies(files)}",
        f"## Prompt\n\n```text\n{story.get('prompt', '')}\n```\n",
        f"## Data\n\n{_data(story.get('data') or {})}",
        f"## Training\n\n{_training(story)}",
        _LIMITS,
    ]
    return "\n".join(sections)


_LIMITS = """## Licence and limits

The weights derive from the base model and stand under its licence; the data stands under the terms of its sources,
some of which forbid commercial use. This is a research model for multiple-choice questions. It is no medical device,
has not been tested on patients, answers a question that has no right option as confidently as one that has, and must
not be used for diagnosis or treatment.
"""


def public_name(base: str) -> str:
    """A base model without a machine's paths: its name on the hub where it has one, otherwise its folder's name."""
    folder = Path(base).name
    if re.fullmatch(r"Qwen2(\.5)?-(VL-)?[\d.]+B-Instruct", folder):
        return f"Qwen/{folder}"
    if HUB_NAME.fullmatch(base) and not Path(base).exists() and not base.startswith("checkpoints/"):
        return base
    return folder


def _front_matter(base: str, story: Mapping[str, Any], is_adapter: bool) -> str:
    pictured = (story.get("data") or {}).get("pictures") != "none"
    lines = [f"library_name: {'peft' if is_adapter else 'transformers'}"]
    if "/" in base:
        lines.append(f"base_model: {base.partition(':')[0]}")
    if base in _LICENCES:
        lines.append(f"license: {_LICENCES[base]}")
    lines.append(f"pipeline_tag: {'image-text-to-text' if pictured else 'text-generation'}")
    lines.append("tags:\n- medical\n- visual-question-answering" if pictured else "tags:\n- medical")
    return "---\n" + "\n".join([*lines, f"- {story.get('method', 'grpo')}"]) + "\n---\n"


def _title(base: str, story: Mapping[str, Any]) -> str:
    sets = [Path(each["path"]).name for each in (story.get("data") or {}).get("sets", [])]
    method = str(story.get("method", "grpo")).upper()
    return f"{base.rpartition('/')[2]} after {method} on {', '.join(sets) or 'its data'}"


def _what_it_is(base: str, story: Mapping[str, Any], is_adapter: bool) -> str:
    method = _METHODS.get(str(story.get("method")), str(story.get("method")))
    kind = "A LoRA adapter for" if is_adapter else "The weights of"
    lines = [f"{kind} {markdown_code(base)}, trained by {method} to answer medical multiple-choice questions.", ""]
    bases = [base, *(public_name(str(name)) for name in story.get("base_model_bases") or ())]
    rows = [
        ("base", ", itself a LoRA adapter on ".join(bases)),
        ("mode", str(story.get("mode"))),
        ("optimizer steps", str(story.get("steps", "not finished"))),
        ("prompts per step", str(story.get("prompts_per_step"))),
        ("completions per step", str(story.get("completions_per_step"))),
        ("hardware", str(story.get("hardware"))),
    ]
    return "\n".join(lines) + "\n" + markdown_table(["", ""], rows)


def _accuracies(files: Sequence[ResultFile]) -> str:
    """Per test set and modality: n, accuracy with its standard error, what could not be read."""
    if not files:
        return (
            "Not measured yet. `eval/infer.py` measures it, and `python -m open_r1.model_card` with `--results` puts "
            "the table here.\n"
        )
    rows = []
    for file in files:
        table = tabulate(file.results)
        names = sorted({row for row, column in table if column == ALL and row != ALL})
        for name in [*(names if len(names) > 1 else []), ALL]:
            tally = table[name, ALL]
            estimate = tally.estimate
            measured = ["", ""]
            if estimate is not None:
                interval = f"{percent(estimate.low, 1)} to {percent(estimate.high, 1)}"
                measured = [with_error(estimate.mean, estimate.stderr), interval]
            beside = [percent(tally.chance, 1), percent(tally.unparsed, 1)]
            rows.append([_test_set(file), name, str(tally.n), *measured, *beside])
    head = ["test set", "part", "n", "accuracy, % ± standard error", "95 % interval", "chance", "unparsed"]
    return (
        markdown_table(head, rows) + "\nStandard errors are clustered by picture. Every answer was read by one grader; "
        "what it could not read is counted as wrong.\n"
    )


def _test_set(file: ResultFile) -> str:
    manifest = file.manifest
    name = f"{Path(str(manifest.get('data'))).name} ({manifest.get('split')}, {manifest.get('mode')})"
    usual = {"image": "shown", "options": "as_given"}
    changed = [f"{key} {manifest[key]}" for key in usual if manifest.get(key, usual[key]) != usual[key]]
    unfinished = [f"{file.missing} questions not answered yet"] if file.missing else []
    return "; ".join([name, *changed, *unfinished])


def _data(report: Mapping[str, Any]) -> str:
    """Counts and hashes of what was trained on; no row of it."""
    rows, hashes = [], []
    for each in report.get("sets", []):
        manifest = each.get("manifest") or {}
        name = Path(str(each.get("path"))).name
        split = (manifest.get("settings") or {}).get("split") or "as given"
        rows.append([name, str(each.get("prompts")), str(split), str(each.get("pictures"))])
        for file, entry in sorted((manifest.get("outputs") or {}).items()):
            if isinstance(entry, Mapping) and "sha256" in entry and file.endswith((".arrow", ".parquet")):
                hashes.append([f"{name}/{file}", str(entry["sha256"]), f"{entry.get('bytes', 0):,}"])
    left_out = {
        "unusable": report.get("dropped"),
        "over the prompt limit": report.get("too_long"),
        "with a picture that does not open or is not taken": report.get("unreadable"),
    }
    counts = [f"{len(rows_)} {why}" for why, rows_ in left_out.items() if rows_]
    text = markdown_table(["set", "questions trained on", "split", "with pictures"], rows)
    text += f"\nLeft out: {', '.join(counts) or 'nothing'}. Longest prompt: {report.get('longest_prompt')} tokens.\n"
    if digest := report.get("ids_sha256"):
        text += f"\nSHA-256 of the questions' ids: `{digest}`.\n"
    return text + ("\n" + markdown_table(["file", "SHA-256", "bytes"], hashes) if hashes else "")


def _training(story: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in sorted((story.get("packages") or {}).items()))
    return (
        f"```bash\n{story.get('command')}\n```\n\n"
        f"Commit `{story.get('commit')}`; {versions}. Started {story.get('started')}.\n"
    )


def public_command(command: str) -> str:
    """A command without secrets, and with the last part alone of every absolute path."""
    kept = []
    for word in split_secrets(_words(command))[0]:
        flag, equals, value = word.rpartition("=")
        kept.append(f"{flag}{equals}{_last_part(value)}")
    return shlex.join(kept)


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def _last_part(word: str) -> str:
    return Path(word).name if word.startswith(("/", "~", "..")) or re.match(r"[A-Za-z]:[\\/]", word) else word


# --- publishing ------------------------------------------------------------------------------------------------------


def take_over_push(training: Any) -> None:
    """Let `--push_to_hub` mean: the finished checkpoint, once, and nothing that names a row or a path.

    transformers 5.23 would upload the whole output folder at every save: run.json, logged completions, pickles.

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
    """Make sure, before training, that the place to publish to exists and may be written.

    Raises:
        UserError: it cannot be created: no login, no right, no network.
    """
    if training.publish_to:
        training.publish_to = _created(training.publish_to, training.hub_token, training.hub_private_repo)


def _created(repo: str, token: str | None, private: bool | None) -> str:
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
    """Write the card of a run that is done, and publish it where that was asked for. For the first process.

    Raises:
        UserError: publishing failed; the checkpoint and its card are in the output folder.
    """
    write_card(training.output_dir, story)
    if training.publish_to:
        print(f"published: {publish(training.output_dir, training.publish_to, training.hub_token)}")


def main() -> int:
    """`python -m open_r1.model_card`: the card of a folder anew, and publishing it.

    Raises:
        UserError: no checkpoint with run.json, or results of another one.
    """
    parser = CommandParser(prog="python -m open_r1.model_card", description="A checkpoint's model card.")
    parser.add_argument("folder", help="output folder of a training")
    parser.add_argument("--results", nargs="*", default=[], help="result files of eval/infer.py for this checkpoint")
    parser.add_argument("--push_to", metavar="ORG/REPO", help="publish weights and card")
    parser.add_argument("--private", action="store_true", help="make the repository private when it is created")
    options = parser.parse_args()
    story = run_record(Path(options.folder))
    if story is None:
        raise UserError(f"{options.folder} holds no run.json, so nobody knows what was trained; name an output folder")
    print(f"written: {write_card(options.folder, story, options.results)}")
    if options.push_to:
        print(f"published: {publish(options.folder, _created(options.push_to, None, options.private or None))}")
    return 0


if __name__ == "__main__":
    run_command(main)
