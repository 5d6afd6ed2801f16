"""The model card of a trained checkpoint: what was trained on what, how, and how well it does.

The card is written into every output folder at the end of a run. It says nothing about single questions or images
and names no path of the machine. `python eval/model_card.py FOLDER --results FILE ...` writes it anew with the
accuracies of an evaluation, and `--push_to ORG/REPO` publishes it with the weights (`publishing`).
"""

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from open_r1.checkpoints.names import ADAPTER, HUB_NAME
from open_r1.common.atomic_files import write_atomically
from open_r1.common.markdown_text import markdown_code, markdown_table, markdown_text
from open_r1.common.redaction import known_secrets, redacted, split_secrets

CARD = "README.md"

_LICENCES = {
    "Qwen/Qwen2-VL-2B-Instruct": "apache-2.0",
    "Qwen/Qwen2-VL-7B-Instruct": "apache-2.0",
    "Qwen/Qwen2.5-VL-3B-Instruct": "other",  # the Qwen research licence
    "Qwen/Qwen2.5-1.5B-Instruct": "apache-2.0",
    "Qwen/Qwen2.5-7B-Instruct": "apache-2.0",
}
_METHODS = {"grpo": "GRPO (group relative policy optimisation)", "sft": "supervised fine-tuning"}

NOT_MEASURED = (
    "Not measured yet. `eval/infer.py` measures it, and `eval/model_card.py` with `--results` puts the table here.\n"
)


def write_card(folder: str | os.PathLike, story: Mapping[str, Any], accuracy: str = NOT_MEASURED) -> Path:
    """Write README.md of a trained checkpoint.

    Args:
        folder: the checkpoint's.
        story: as run.json has it.
        accuracy: Markdown; `evaluation.model_card.accuracy_table` makes it of result files.
    """
    path = Path(folder) / CARD
    write_atomically(path, card(story, accuracy, is_adapter=(Path(folder) / ADAPTER).is_file()))
    return path


def card(story: Mapping[str, Any], accuracy: str = NOT_MEASURED, is_adapter: bool = False) -> str:
    """The text of a model card.

    Args:
        story: as run.json has it.
        accuracy: Markdown.
        is_adapter: whether the folder holds LoRA weights alone.
    """
    command = _words(str(story.get("command") or ""))
    story = redacted(story, known_secrets(story, words=command)) | {"command": public_command(shlex.join(command))}
    base = public_name(str(story.get("base_model") or ""))
    sections = [
        _front_matter(base, story, is_adapter),
        f"# {markdown_text(_title(base, story))}\n",
        _what_it_is(base, story, is_adapter),
        f"## Accuracy\n\n{accuracy}",
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
    with_images = (story.get("data") or {}).get("pictures") != "none"
    metadata = ModelCardData(
        library_name="peft" if is_adapter else "transformers",
        base_model=base.partition(":")[0] if "/" in base else None,
        license=_LICENCES.get(base),
        pipeline_tag="image-text-to-text" if with_images else "text-generation",
        tags=["medical", *["visual-question-answering"] * with_images, str(story.get("method", "grpo"))],
    )
    order = ["library_name", "base_model", "license", "pipeline_tag", "tags"]
    return f"---\n{metadata.to_yaml(original_order=order)}\n---\n"


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
        "with an image that does not open or is not taken": report.get("unreadable"),
    }
    counts = [f"{len(rows_)} {why}" for why, rows_ in left_out.items() if rows_]
    text = markdown_table(["set", "questions trained on", "split", "with images"], rows)
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
