"""The model card of a trained checkpoint: what was trained on what, how, and how well it does.

The card is written into every output folder at the end of a run. It contains no single question or image and no
path of the machine. `python eval/model_card.py FOLDER --results FILE ...` writes it again with the accuracies of an
evaluation, and `--push_to ORG/REPO` publishes it with the weights (`publishing`).
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


def write_card(folder: str | os.PathLike, record: Mapping[str, Any], accuracy: str = NOT_MEASURED) -> Path:
    """Write README.md of a trained checkpoint.

    Args:
        folder: of the checkpoint.
        record: the run record.
        accuracy: Markdown, for instance of `evaluation.reporting.model_card.accuracy_table`.
    """
    path = Path(folder) / CARD
    write_atomically(path, card(record, accuracy, is_adapter=(Path(folder) / ADAPTER).is_file()))
    return path


def card(record: Mapping[str, Any], accuracy: str = NOT_MEASURED, is_adapter: bool = False) -> str:
    """The text of a model card.

    Args:
        record: the run record.
        accuracy: Markdown.
        is_adapter: whether the folder holds LoRA weights alone.
    """
    command = _words(str(record.get("command") or ""))
    record = redacted(record, known_secrets(record, words=command)) | {"command": public_command(shlex.join(command))}
    base = public_name(str(record.get("base_model") or ""))
    sections = [
        _front_matter(base, record, is_adapter),
        f"# {markdown_text(_title(base, record))}\n",
        _what_it_is(base, record, is_adapter),
        f"## Accuracy\n\n{accuracy}",
        f"## Prompt\n\n```text\n{record.get('prompt', '')}\n```\n",
        f"## Data\n\n{_data(record.get('data') or {})}",
        f"## Training\n\n{_training(record)}",
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
    """A base model without paths of the machine: its name on the hub if it has one, otherwise its folder's name."""
    folder = Path(base).name
    if re.fullmatch(r"Qwen2(\.5)?-(VL-)?[\d.]+B-Instruct", folder):
        return f"Qwen/{folder}"
    if HUB_NAME.fullmatch(base) and not Path(base).exists() and not base.startswith("checkpoints/"):
        return base
    return folder


def _front_matter(base: str, record: Mapping[str, Any], is_adapter: bool) -> str:
    with_images = (record.get("data") or {}).get("pictures") != "none"
    metadata = ModelCardData(
        library_name="peft" if is_adapter else "transformers",
        base_model=base.partition(":")[0] if "/" in base else None,
        license=_LICENCES.get(base),
        pipeline_tag="image-text-to-text" if with_images else "text-generation",
        tags=["medical", *["visual-question-answering"] * with_images, str(record.get("method", "grpo"))],
    )
    order = ["library_name", "base_model", "license", "pipeline_tag", "tags"]
    return f"---\n{metadata.to_yaml(original_order=order)}\n---\n"


def _title(base: str, record: Mapping[str, Any]) -> str:
    sets = [Path(entry["path"]).name for entry in (record.get("data") or {}).get("sets", [])]
    method = str(record.get("method", "grpo")).upper()
    return f"{base.rpartition('/')[2]} after {method} on {', '.join(sets) or 'its data'}"


def _what_it_is(base: str, record: Mapping[str, Any], is_adapter: bool) -> str:
    method = _METHODS.get(str(record.get("method")), str(record.get("method")))
    kind = "A LoRA adapter for" if is_adapter else "The weights of"
    lines = [f"{kind} {markdown_code(base)}, trained by {method} to answer medical multiple-choice questions.", ""]
    bases = [base, *(public_name(str(name)) for name in record.get("base_model_bases") or ())]
    rows = [
        ("base", ", itself a LoRA adapter on ".join(bases)),
        ("mode", str(record.get("mode"))),
        ("optimizer steps", str(record.get("steps", "not finished"))),
        ("prompts per step", str(record.get("prompts_per_step"))),
        ("completions per step", str(record.get("completions_per_step"))),
        ("hardware", str(record.get("hardware"))),
    ]
    return "\n".join(lines) + "\n" + markdown_table(["", ""], rows)


def _data(report: Mapping[str, Any]) -> str:
    """Counts and hashes of the training data, without any row."""
    rows, hashes = [], []
    for data_set in report.get("sets", []):
        manifest = data_set.get("manifest") or {}
        name = Path(str(data_set.get("path"))).name
        split = (manifest.get("settings") or {}).get("split") or "as given"
        rows.append([name, str(data_set.get("prompts")), str(split), str(data_set.get("pictures"))])
        for file, entry in sorted((manifest.get("outputs") or {}).items()):
            if isinstance(entry, Mapping) and "sha256" in entry and file.endswith((".arrow", ".parquet")):
                hashes.append([f"{name}/{file}", str(entry["sha256"]), f"{entry.get('bytes', 0):,}"])
    left_out = {
        "unusable": report.get("dropped"),
        "over the prompt limit": report.get("too_long"),
        "with an image that does not open or is not taken": report.get("unreadable"),
    }
    counts = [f"{len(ids)} {reason}" for reason, ids in left_out.items() if ids]
    text = markdown_table(["set", "questions trained on", "split", "with images"], rows)
    text += f"\nLeft out: {', '.join(counts) or 'nothing'}. Longest prompt: {report.get('longest_prompt')} tokens.\n"
    if digest := report.get("ids_sha256"):
        text += f"\nSHA-256 of the questions' ids: `{digest}`.\n"
    return text + ("\n" + markdown_table(["file", "SHA-256", "bytes"], hashes) if hashes else "")


def _training(record: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in sorted((record.get("packages") or {}).items()))
    return (
        f"```bash\n{record.get('command')}\n```\n\n"
        f"Commit `{record.get('commit')}`; {versions}. Started {record.get('started')}.\n"
    )


def public_command(command: str) -> str:
    """A command without secrets, with every absolute path cut to its last part."""
    public_words = []
    for word in split_secrets(_words(command))[0]:
        flag, equals, value = word.rpartition("=")
        public_words.append(f"{flag}{equals}{_last_part(value)}")
    return shlex.join(public_words)


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def _last_part(word: str) -> str:
    return Path(word).name if word.startswith(("/", "~", "..")) or re.match(r"[A-Za-z]:[\\/]", word) else word
