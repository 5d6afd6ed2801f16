"""Damaged and hostile files through every door: prepare, infer and report end in one line or in their result.

    python scripts/fuzz.py --files 20000 --seed 0

Images and JSON files are changed in ways that disks, downloads, spreadsheets and malice know: flipped bits, cuts,
parts of other files, values of another type, deep nesting, huge numbers, keys that stand twice, texts without end,
names that lead elsewhere. Each goes in
between good ones. Three things must hold: nothing but a `UserError` ends a reading, every good row beside a damaged one
comes through, and no file takes longer than SLOW. What breaks one is kept in --keep, and the exit status is 1.

Everything runs in this process on one core; the same seed makes the same files.
"""

import json
import shutil
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from open_r1.common.atomic_files import object_of, parse_json, repeated_key
from open_r1.common.command_line import CommandParser
from open_r1.data.images import ImageError
from open_r1.data.loading import load_rows
from open_r1.data.omnimedvqa.prepare import Preparation, prepare
from open_r1.data.preparation.encoded_images import Encoding
from open_r1.data.row_images import row_images
from open_r1.data.text.files import rows_of
from open_r1.evaluation.answering.run import infer
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.evaluation.reporting.published_form import published_form
from open_r1.evaluation.reporting.report import write_report
from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import graded_result, read_results
from open_r1.evaluation.scoring.tallies import tabulate
from open_r1.grading.grader import Outcome
from open_r1.vocabulary.labels import Modality, Task
from open_r1_testbed.damage import (
    BYTES,
    VALUES,
    Draw,
    Value,
    damaged_entries,
    damaged_text,
    release_row,
    row,
    seed_images,
    written,
)
from open_r1_testbed.fuzz_log import Log, quiet
from open_r1_testbed.tiny_models import build_tiny_checkpoint

BATCH = 200  # images in one release
LISTS = 60  # question files in one release
FULL_REPORT = 12  # of so many result files that can be read one is reported in full, with figures and items
MODEL = 2000  # of so many images one batch is answered by a model
ENCODING = Encoding(size=32)
GOOD = 6  # images of every release that nobody touched


class Fuzz:
    """One fuzzing of so many files, in a folder of its own."""

    def __init__(self, folder: Path, seed: int, keep: Path) -> None:
        self.folder, self.draw, self.log = folder, Draw(seed), Log(keep)
        self.images = seed_images()
        self.model: Path | None = None
        self.reports = 0
        self.files: Counter[str] = Counter()

    def run(self, files: int) -> None:
        """Damage `files` files: 55 % images, 25 % question lists, 5 % text questions, 15 % result files."""
        warnings.simplefilter("ignore")  # Pillow's, about every damaged tag
        shares = {"picture": 0.55, "release": 0.1, "list": 0.15, "text": 0.05, "result": 0.15}
        counts = {kind: int(files * share) for kind, share in shares.items()}
        counts["picture"] += files - sum(counts.values())
        for start in range(0, counts["picture"], BATCH):
            self._images(min(BATCH, counts["picture"] - start), with_model=start % MODEL == 0)
        for start in range(0, counts["release"], LISTS):
            self._releases(min(LISTS, counts["release"] - start))
        self._lists(counts["list"])
        self._texts(counts["text"])
        self._results(counts["result"])

    # ---- images: prepare, the rows as training and evaluation open them, and the model

    def _images(self, count: int, with_model: bool) -> None:
        root = self._fresh("release")
        kinds: dict[str, str] = {}
        (root / "Images").mkdir(parents=True)
        for number in range(GOOD):
            suffix, data = self.images[number * 3 % len(self.images)]
            (root / f"Images/good{number}.{suffix}").write_bytes(data)
            kinds[f"Images/good{number}.{suffix}"] = "good"
        for number in range(count):
            suffix, data = self.draw.choice(self.images)
            change = self.draw.choice(BYTES)
            name = f"Images/{number:04d}.{suffix}"
            (root / name).write_bytes(change(data, self.draw.choice(self.images)[1], self.draw))
            kinds[name] = change.__name__
        self.files["picture"] += count
        rows = [row(number, name) for number, name in enumerate(kinds)]
        self._prepared(root, [release_row(number, name) for number, name in enumerate(kinds)], kinds)
        self._opened(root, rows, kinds)
        if with_model:
            self._answered(root, rows, kinds)

    def _prepared(self, root: Path, rows: list[dict[str, Any]], kinds: dict[str, str]) -> None:
        write(root / "QA_information/Open-access/Fuzzed.json", json.dumps(rows))
        with self.log.watch("prepare", "batch of images", {}, share=len(kinds)):
            outcome = self._prepare(root)
            there = {value["path"] for value in load_set(outcome)}
            dropped = {entry["where"].split(": ")[0] for entry in outcome.dropped}
            for name, kind in kinds.items():
                if kind != "good":
                    self.log.note("prepare", kind, "read" if name in there else "dropped with a reason")
                if (name in there) == (name in dropped) or (kind == "good" and name not in there):
                    self.log.fault("prepare", kind, f"{name} is lost", {"picture": (root / name).read_bytes()})

    def _prepare(self, root: Path) -> Any:
        settings = Preparation(
            output_dir=self._fresh("prepared"),
            release=root,
            by=("modality",),
            only=(
                Modality.CT,
            ),  # a row that damage moves to a set of its own, without an image, makes that set refused
            encoding=ENCODING,
            allow_missing_side=True,
        )
        return prepare(settings)

    def _opened(self, root: Path, rows: list[dict[str, str]], kinds: dict[str, str]) -> None:
        write(root / "list.json", json.dumps(rows))
        table, _ = load_rows(root / "list.json", image_root=root)
        for table_row in table:
            assert isinstance(table_row, dict)
            path = Path(table_row["images"][0]["path"])
            kind = kinds[f"Images/{path.name}"]
            with self.log.watch("training row", kind, {path.name: path.read_bytes()}):
                try:
                    assert row_images(table_row)[0].size == (384, 384)
                except ImageError:
                    self.log.note("training row", kind, "dropped with a reason")
                    assert kind != "good"
                else:
                    self.log.note("training row", kind, "read")

    def _answered(self, root: Path, rows: list[dict[str, str]], kinds: dict[str, str]) -> None:
        if self.model is None:
            self.model = build_tiny_checkpoint(self.folder / "model")
        output = self._fresh("answers") / "out.jsonl"
        settings = InferenceSettings(
            model_path=str(self.model),
            prompt_path=str(root / "list.json"),
            image_root=str(root),
            output_path=str(output),
            max_new_tokens=2,
            max_pixels=64 * 64,
        )
        with self.log.watch("infer with a model", "batch of images", {}, share=len(kinds)):
            infer(settings)
            results = {result.problem: result for result in read_results(output).results}
            for (name, kind), question in zip(kinds.items(), rows, strict=True):
                answered = results[question["problem"]].outcome is not None
                self.log.note("infer with a model", kind, "answered" if answered else "error line with a reason")
                if kind == "good" and not answered:
                    self.log.fault("infer with a model", kind, f"{name} is lost", {})

    # ---- question files

    def _good_folder(self) -> tuple[Path, list[str]]:
        root = self._fresh("release")
        (root / "Images").mkdir(parents=True)
        for number in range(GOOD):
            (root / f"Images/{number}.png").write_bytes(self.images[0][1])
        return root, [f"Images/{number}.png" for number in range(GOOD)]

    def _releases(self, count: int) -> None:
        """Release files with damaged rows, many in one release: the good rows of each come through."""
        root, names = self._good_folder()
        good: dict[str, str] = {}
        for number in range(count):
            entries = [release_row(number * 100 + place, names[place % GOOD]) for place in range(8)]
            kind, changed = damaged_entries(entries, self.draw)
            good |= {entry["question"]: kind for entry in entries if changed.count(entry) == 1}
            self.log.note("prepare", f"rows: {kind}", "read")
            write(root / f"QA_information/Open-access/F{number:04d}.json", written(changed, self.draw))
        self.files["release"] += count
        with self.log.watch("prepare", "batch of releases", {}, share=count):
            outcome = self._prepare(root)
            there = {problem.split(" A)")[0] for problem in problems(outcome)}
            for question, kind in good.items():
                if question not in there:
                    files = {path.name: path.read_bytes() for path in (root / "QA_information").rglob("*.json")}
                    self.log.fault("prepare", kind, f"the good row {question!r} is lost", files)
                    return

    def _lists(self, count: int) -> None:
        """JSON lists: read as infer and training read them, the good rows of what can be parsed are all there."""
        root, names = self._good_folder()
        entries = [row(number, names[number % GOOD]) for number in range(8)]
        path = root / "Images" / ".." / "list.json"
        for _ in range(count):
            if self.draw.random() < 0.5:
                kind, changed = damaged_entries(entries, self.draw)
                data = written(changed, self.draw).encode()
            else:
                kind, data = damaged_text(json.dumps(entries, indent=1), json.dumps(release_row(3, "x")), self.draw)
            path.write_bytes(data)
            with self.log.watch("infer: read and plan", kind, {"list.json": data}):
                table, dropped = load_rows(path, "test", root)
                self.log.note("infer: read and plan", kind, "read, bad rows dropped" if dropped else "read")
                there = set(table["problem"])
                lost = [entry for entry in good_rows(data, entries) if entry["problem"] not in there]
                if lost:
                    self.log.fault("infer: read and plan", kind, f"the good row {lost[0]!r} is lost", {"l.json": data})
        self.files["list"] += count

    def _texts(self, count: int) -> None:
        """Text questions as JSON lines, JSON and CSV: every line that is whole is a row."""
        root = self._fresh("texts")
        entries = [
            {"id": str(number), "question": f"Which {number}?", "answer": "A", "n": number} for number in range(8)
        ]
        forms = {
            "jsonl": "\n".join(map(json.dumps, entries)) + "\n",
            "json": json.dumps(entries),
            "csv": "id,question,answer\n" + "".join(f'{e["id"]},"{e["question"]}",A\n' for e in entries),
        }
        for _ in range(count):
            suffix = self.draw.choice(list(forms))
            kind, data = damaged_text(forms[suffix], forms["jsonl"], self.draw)
            path = root / f"questions.{suffix}"
            path.write_bytes(data)
            with self.log.watch("text questions", kind, {path.name: data}):
                questions = [question for _, question in rows_of(path)]
                self.log.note("text questions", kind, "read")
                if suffix == "jsonl":
                    good_entries = [entry for entry in entries if json.dumps(entry).encode() in data.split(b"\n")]
                    if any(entry not in questions for entry in good_entries):
                        self.log.fault("text questions", kind, "a good row is lost", {path.name: data})
        self.files["text"] += count

    # ---- result files

    def _results(self, count: int) -> None:
        """Result files: read, tabulated and written in the published form; some reported in full, items included."""
        root, names = self._good_folder()
        write(root / "list.json", json.dumps([row(number, names[number % GOOD]) for number in range(12)]))
        rows = load_rows(root / "list.json", "test", root)[0]
        manifest = {"rows": 12, "data": str(root / "list.json"), "image_root": str(root), "mode": "think"}
        path = root / "out.jsonl"
        with ResultWriter(path, manifest) as writer:
            for number, question in enumerate(rows):
                labels = {"modality": list(Modality)[number % 3].value, "task": list(Task)[number % 2].value}
                text = ("<answer>A</answer>", "the answer is B", "I do not know")[number % 3]
                writer.write(graded_result({**question, **labels}, f"image {number % 5}", text, 5))  # type: ignore[dict-item]
        undamaged = path.read_text(encoding="utf-8")
        for _ in range(count):
            kind, data = self._damaged_results(undamaged)
            path.write_bytes(data)
            with self.log.watch("report", kind, {"out.jsonl": data}):
                self._report(path)
                self.log.note("report", kind, "reported")
        self.files["result"] += count

    def _damaged_results(self, text: str) -> tuple[str, bytes]:
        if self.draw.random() < 0.5:
            return damaged_text(text, json.dumps(release_row(3, "x")), self.draw)
        lines = [json.loads(line) for line in text.splitlines()]
        if self.draw.random() < 0.3:
            kind, lines[0]["manifest"] = "manifest", self._damaged_manifest(lines[0]["manifest"])
        else:
            kind, changed = damaged_entries(lines[1:], self.draw)
            lines[1:] = changed
        return kind, "".join(written(line, self.draw) + "\n" for line in lines).encode()

    def _damaged_manifest(self, manifest: dict[str, Value]) -> dict[str, Value]:
        names = ("checkpoint", "trained_on", "tested_on", "run_dir", "data", "image_root", "split", "options")
        complete = dict.fromkeys(names, "x") | {"image": "shown", "samples": 1, "checkpoint_sha256": "x"}
        changed = {**complete, **manifest}
        self.draw.choice(VALUES)(changed, self.draw)
        return changed

    def _report(self, path: Path) -> None:
        file = read_results(path)
        table = tabulate(file.results)
        assert all(result.outcome is None or isinstance(result.outcome, Outcome) for result in file.results)
        assert table
        json.dumps(published_form(file.results))
        self.reports += 1
        if self.reports % FULL_REPORT == 1:
            write_report([path], self._fresh("report"), with_items=True)

    def _fresh(self, name: str) -> Path:
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path


# -------------------------------------------------------------------------------------------------------- helpers


def write(path: Path, text: str) -> None:
    """A text file and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def load_set(outcome: Any) -> Iterator[dict[str, Any]]:
    """The images of all rows of what `prepare` made, undecoded."""
    for prepared in outcome.sets:
        for side in ("train", "test"):
            if (prepared.folder / side).is_dir():
                for table_row in load_rows(prepared.folder, side)[0]:
                    assert isinstance(table_row, dict)
                    assert row_images(table_row)[0].size == (ENCODING.size, ENCODING.size)
                    yield from table_row["images"]


def problems(outcome: Any) -> Iterator[str]:
    """The problems of all rows of what `prepare` made."""
    for prepared in outcome.sets:
        for side in ("train", "test"):
            if (prepared.folder / side).is_dir():
                yield from load_rows(prepared.folder, side)[0]["problem"]


def good_rows(data: bytes, entries: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows of a JSON list that were left as they were and have no key twice, read by Python's own parser."""
    try:
        value = parse_json(data.decode("utf-8-sig"), object_of)
    except ValueError:
        return []
    unambiguous = [entry for entry in value if repeated_key(entry) is None] if isinstance(value, list) else []
    return [entry for entry in entries if entry in unambiguous]


def lines(fuzz: Fuzz, seconds: float) -> Iterator[str]:
    """What is printed: files, outcomes by door, times, and what should not have been."""
    files = ", ".join(f"{count:,} {kind}" for kind, count in fuzz.files.items())
    yield f"{sum(fuzz.files.values()):,} files ({files}) in {seconds:.0f} s"
    doors: dict[str, Counter[str]] = {}
    for (door, kind, outcome), count in fuzz.log.counts.items():
        if kind != "good":
            doors.setdefault(door, Counter())[outcome] += count
    for door, outcomes in doors.items():
        summary = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items()))
        yield f"  {door}: {summary}; {fuzz.log.seconds[door]:.0f} s of processor time"
    kinds = sorted({kind for _, kind, _ in fuzz.log.counts})
    yield f"  kinds of damage ({len(kinds)}): {', '.join(kinds)}"
    yield f"  tracebacks, lost good rows, slow files: {len(fuzz.log.faults)}"
    yield from (f"    {fault}" for fault in fuzz.log.faults[:40])


def main() -> int:
    """Fuzz, print the figures; 1 if anything broke."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("output/fuzz"), help="for what breaks something")
    flags = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        fuzz = Fuzz(Path(folder), flags.seed, flags.keep)
        with quiet():
            fuzz.run(flags.files)
        print("\n".join(lines(fuzz, time.perf_counter() - start)))
    return int(bool(fuzz.log.faults))
