"""Push hostile image references through every door, and write down what Python opened and whom it called.

    python tests/support/watched_doors.py FOLDER

FOLDER holds what tests/data/test_hostile_images.py put there. Run apart from the tests: an audit hook stays for good.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from report_files import images_in

from open_r1.checkpoints.processors import load_processor
from open_r1.common.errors import UserError
from open_r1.data.loading import load_rows
from open_r1.data.omnimedvqa.prepare import Preparation, prepare
from open_r1.data.preparation.encoded_images import Encoding
from open_r1.data.row_images import row_images
from open_r1.evaluation.answering.run import infer
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.evaluation.reporting.report import write_report
from open_r1.evaluation.scoring.results import read_results
from open_r1.training.command_line.arguments import QuestionArguments
from open_r1.training.setup.questions import load_training_rows
from open_r1.training.sft_run import example_maker
from open_r1.vocabulary.modes import Mode

CALLS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request")
PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.spawn")
PLACES = ("open", "os.listdir", "os.scandir", "os.chdir", "os.open", "os.truncate", "os.rename", "os.remove")


class Watch:
    """What happened since it was asked last."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in (*CALLS, *PROCESSES):
            self.seen.append((event, repr(arguments)[:300]))
        elif event in PLACES and arguments and isinstance(arguments[0], str | bytes | os.PathLike):
            self.seen.append((event, os.path.abspath(os.fsdecode(arguments[0]))))

    def take(self) -> list[tuple[str, str]]:
        """Each different event once."""
        events, self.seen = list(dict.fromkeys(self.seen)), []
        return events


def dropped_reasons(dropped: list[Any]) -> list[str]:
    return [row["reason"] if isinstance(row, dict) else row.reason for row in dropped]


def prepared(root: Path, **source: Any) -> dict[str, Any]:
    """`prepare` from a release or split files."""
    name = "-".join(source)
    settings = Preparation(
        output_dir=root / "out" / name, by=("modality",), encoding=Encoding(32), allow_missing_side=True, **source
    )
    outcome = prepare(settings)
    rows = [
        row for prepared_set in outcome.sets for side in ("train", "test") for row in side_of(prepared_set.folder, side)
    ]
    return {"kept": sorted(row["images"][0]["path"] for row in rows), "reasons": dropped_reasons(outcome.dropped)}


def side_of(folder: Path, side: Any) -> list[Any]:
    return list(load_rows(folder, side)[0]) if (folder / side).is_dir() else []


def loaded(root: Path) -> dict[str, Any]:
    """A JSON list, opened as training opens rows."""
    rows, dropped = load_rows(root / "list.json", None, root / "images")
    kept_images, reasons = [], dropped_reasons(dropped)
    for row in rows:
        assert isinstance(row, dict)
        try:
            row_images(row)
        except UserError as error:
            reasons.append(getattr(error, "reason", "?"))
        else:
            kept_images.append(Path(row["images"][0]["path"]).name)
    return {"kept": sorted(kept_images), "reasons": reasons}


def trained(root: Path) -> dict[str, Any]:
    """What GRPO and SFT do with the rows before and while they train."""
    script = QuestionArguments([str(root / "list.json")], image_root=str(root / "images"), max_prompt_length=4096)
    processor = load_processor(root / "model", max_pixels=64 * 64)
    rows, report, _ = load_training_rows(script, processor, Mode.NOTHINK)
    plain = rows.with_format(None)
    example_maker(Mode.NOTHINK, True)({name: plain[name][:] for name in plain.column_names})
    reasons = [text.split("reason='")[-1].split("'")[0] for text in report["dropped"]]
    kept_images = sorted(Path(row["images"][0]["path"]).name for row in plain)  # pyright: ignore[reportArgumentType, reportCallIssue]
    return {"kept": kept_images, "reasons": reasons + [reason for _, reason in report["unreadable"]]}


def saved(root: Path) -> dict[str, Any]:
    """Saved sets whose rows name images, or whose columns are declared as images."""
    outcomes = {}
    for folder in sorted((root / "saved").iterdir()):
        try:
            rows, dropped = load_rows(folder)
            outcomes[folder.name] = [len(rows), *dropped_reasons(dropped)]
            for row in rows:
                row_images(row)  # pyright: ignore[reportArgumentType]
        except UserError as error:
            outcomes[folder.name] = str(error)
    return {"kept": [], "reasons": [], "told": outcomes}


def answered(root: Path) -> dict[str, Any]:
    """eval/infer.py."""
    infer(
        InferenceSettings(
            model_path=str(root / "model"),
            prompt_path=str(root / "list.json"),
            image_root=str(root / "images"),
            output_path=str(root / "out" / "answers.jsonl"),
            max_new_tokens=2,
            max_pixels=64 * 64,
        )
    )
    results = read_results(root / "out" / "answers.jsonl").results
    kept_images = sorted(Path(result.image).name for result in results if result.outcome is not None)
    return {"kept": kept_images, "reasons": [str(result.error).split(":")[0] for result in results if result.error]}


def reported(root: Path) -> dict[str, Any]:
    """eval/report.py with the images in the page."""
    write_report([root / "out" / "answers.jsonl"], root / "out" / "report", with_items=True)
    return {"kept": ["a.png"] * len(images_in(root / "out" / "report" / "report.html")), "reasons": []}


def main() -> None:
    """Every door in turn; one line of JSON at the end."""
    root = Path(sys.argv[1]).resolve()
    doors = {
        "prepare a release": lambda: prepared(root, release=root / "images"),
        "prepare split files": lambda: prepared(root, splits_dir=root / "splits", image_root=root / "images"),
        "load a list": lambda: loaded(root),
        "train": lambda: trained(root),
        "saved sets": lambda: saved(root),
        "infer": lambda: answered(root),
        "report": lambda: reported(root),
    }
    watch, outcomes = Watch(), {}
    for name, door in doors.items():
        watch.take()
        outcomes[name] = {**door(), "events": watch.take()}
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
