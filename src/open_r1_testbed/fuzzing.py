"""Damaged and hostile files through every door: prepare, infer and report end in one line or in their result.

    python scripts/fuzz.py --files 20000 --seed 0

Pictures and JSON files are changed in ways that disks, downloads, spreadsheets and malice know: flipped bits, cuts,
parts of other files, values of another type, deep nesting, huge numbers, keys that stand twice, texts without end,
names that lead elsewhere. Each goes in
between good ones. Three things must hold: nothing but a `UserError` ends a reading, every good row beside a damaged one
comes through, and no file takes longer than SLOW. What breaks one is kept in --keep, and the exit status is 1.

Everything runs in this process on one core; the same seed makes the same files.
"""

import copy
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from PIL import Image

from open_r1.common.atomic_files import object_of, parse_json, repeated_key
from open_r1.common.command_line import CommandParser
from open_r1.common.errors import UserError
from open_r1.data.images import ImageError
from open_r1.data.json_lists import LONGEST_ENTRY
from open_r1.data.loading import load_rows
from open_r1.data.omnimedvqa.encoded_pictures import Encoding
from open_r1.data.omnimedvqa.prepare import Preparation, prepare
from open_r1.data.row_images import row_pictures
from open_r1.data.text.files import rows_of
from open_r1.evaluation.answering.run import infer
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.evaluation.reporting.report import write_report
from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import judged, published_form, read_results
from open_r1.evaluation.scoring.tallies import tabulate
from open_r1.grading.grader import Outcome
from open_r1.vocabulary.labels import Modality, Task
from open_r1_testbed.tiny_models import build_tiny_checkpoint

SLOW = 5.0  # seconds of processor time for one file, or per file of a batch: a busy machine does not count
BATCH = 200  # pictures in one release
LISTS = 60  # question files in one release
FULL_REPORT = 12  # of so many result files that can be read one is reported in full, with figures and items
ENDLESS = 0.03  # of the rows that get a long text one gets a text that no row may have
MODEL = 2000  # of so many pictures one batch is answered by a model
ENCODING = Encoding(size=32)
GOOD = 6  # pictures of every release that nobody touched

Value = Any
Draw = random.Random


# ------------------------------------------------------------------------------------------------ what is damaged


def seed_pictures() -> list[tuple[str, bytes]]:
    """Small pictures of every allowed format and mode, as (suffix, bytes)."""
    noise = Image.effect_noise((24, 20), 60)
    made = []
    for mode, form, options in (
        ("L", "PNG", {}),
        ("RGB", "PNG", {}),
        ("P", "PNG", {"transparency": 3}),
        ("RGBA", "PNG", {}),
        ("I;16", "PNG", {}),
        ("1", "PNG", {}),
        ("L", "JPEG", {}),
        ("RGB", "JPEG", {"progressive": True, "comment": b"made up", "exif": b"Exif\0\0MM\0\x2a\0\0\0\x08\0\0"}),
        ("CMYK", "JPEG", {}),
        ("RGB", "BMP", {}),
        ("P", "BMP", {}),
        ("L", "TIFF", {"compression": "tiff_lzw"}),
        ("RGB", "TIFF", {"compression": "tiff_adobe_deflate"}),
        ("RGB", "TIFF", {"compression": "jpeg"}),
        ("F", "TIFF", {}),
        ("P", "GIF", {}),
        ("RGB", "WEBP", {"lossless": True}),
        ("RGBA", "WEBP", {}),
    ):
        stream = BytesIO()
        picture = noise.convert("I").convert("I;16") if mode == "I;16" else noise.convert(mode)
        picture.save(stream, form, **options)
        made.append((form.lower(), stream.getvalue()))
    return made


def row(number: int, image: str) -> dict[str, str]:
    """A good question about a picture, in the form of the split files."""
    return {
        "image": image,
        "problem": f"Which method made picture {number}? A)CT, B)MRI (T{number % 7}), C)X-Ray",
        "solution": f"<answer> {'ABC'[number % 3]} </answer>",
    }


def release_row(number: int, image: str) -> dict[str, Any]:
    """The same in the form of the release."""
    options = {"option_A": "CT", "option_B": f"MRI (T{number % 7})", "option_C": "X-Ray"}
    return {
        "dataset": "Fuzzed",
        "question_id": f"Fuzzed_{number:05d}",
        "question_type": Task.MODALITY.value,
        "modality_type": "CT(Computed Tomography)",
        "question": f"Which method made picture {number}?",
        "gt_answer": list(options.values())[number % 3],
        "image_path": image,
        **options,
    }


# ------------------------------------------------------------------------------------------------ damage to bytes


def flip(data: bytes, other: bytes, draw: Draw) -> bytes:
    """One to eight bits turned over."""
    broken = bytearray(data)
    for _ in range(draw.randint(1, 8)):
        broken[draw.randrange(len(broken))] ^= 1 << draw.randrange(8)
    return bytes(broken)


def overwrite(data: bytes, other: bytes, draw: Draw) -> bytes:
    """A run of up to 32 bytes replaced by chance, zeros or ones; in the first 200 bytes half of the time."""
    reach = min(len(data), 200) if draw.random() < 0.5 else len(data)
    at, length = draw.randrange(reach), draw.randint(1, 32)
    filling = draw.choice([bytes(length), b"\xff" * length, draw.randbytes(length)])
    return data[:at] + filling + data[at + length :]


def truncate(data: bytes, other: bytes, draw: Draw) -> bytes:
    """The beginning alone."""
    return data[: draw.randrange(len(data))]


def splice(data: bytes, other: bytes, draw: Draw) -> bytes:
    """The beginning of one file and the end of another."""
    return data[: draw.randrange(len(data))] + other[draw.randrange(len(other)) :]


def insert(data: bytes, other: bytes, draw: Draw) -> bytes:
    """Bytes put in: chance, or a part of another file."""
    at, start = draw.randrange(len(data)), draw.randrange(len(other))
    piece = draw.choice([draw.randbytes(draw.randint(1, 64)), other[start : start + draw.randint(1, 400)]])
    return data[:at] + piece + data[at:]


def repeat(data: bytes, other: bytes, draw: Draw) -> bytes:
    """A part of the file up to a thousand times."""
    at = draw.randrange(len(data))
    return data[:at] + data[at : at + draw.randint(1, 40)] * draw.choice([2, 10, 1000]) + data[at:]


def cut_out(data: bytes, other: bytes, draw: Draw) -> bytes:
    """A part left out."""
    at = draw.randrange(len(data))
    return data[:at] + data[at + draw.randint(1, 64) :]


def append(data: bytes, other: bytes, draw: Draw) -> bytes:
    """Another file behind the end."""
    return data + draw.choice([other, draw.randbytes(50), b"PK\x03\x04" + other, b"\0" * 1000])


def swap(data: bytes, other: bytes, draw: Draw) -> bytes:
    """Something else altogether under this name."""
    return draw.choice(
        [
            b"",
            other,
            b"\0",
            b"null",
            b"%PDF-1.7",
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            b"\x1f\x8b",
            b"\xff\xd8",
        ]
    )


BYTES = (flip, overwrite, truncate, splice, insert, repeat, cut_out, append, swap)


def texts_otherwise(data: bytes, other: bytes, draw: Draw) -> bytes:
    """The same text in another encoding, or with a byte order mark."""
    text = data.decode("utf-8", "replace")
    return draw.choice(
        [
            b"\xef\xbb\xbf" + data,
            text.encode("utf-16"),
            text.encode("latin-1", "replace") + b"\xe9",
            data.replace(b"\n", b"\r"),
            data.replace(b'"', b"'"),
            b"\xef\xbb\xbf" * 2 + data,
        ]
    )


# ----------------------------------------------------------------------------------------------- damage to values


def deep(levels: int, inner: Value = 1) -> Value:
    """A list within a list, `levels` times."""
    for _ in range(levels):
        inner = [inner]
    return inner


REFERENCES = (
    *("http://127.0.0.1:9/x.png", "https://example.org/x.png", "file:///etc/passwd", "ftp://127.0.0.1/x.png"),
    *("/etc/passwd", "//host/share/x.png", "\\\\host\\share\\x.png", "../../../../etc/passwd", "Images/../../x"),
    *("data:image/png;base64,iVBORw0KGgo=", "x\0.png", "x" * 5000, "/proc/self/environ", "/dev/zero", ".", "", "~"),
    *("%2e%2e/%2e%2e/etc/passwd", "a" * 255, "\ud800.png", "\u202egnp.x", "Images", "s3://bucket/x", "c:\\x.png"),
)
STRANGE: tuple[Callable[[], Value], ...] = (
    *(lambda value=value: value for value in (None, True, 0, -1, 1e308, float("nan"), float("inf"), [], {}, "", " ")),
    lambda: 10**400,
    lambda: 10**4000,
    lambda: "x" * 20_000,
    lambda: "A)" * 3000,
    lambda: "\ud800",
    lambda: "a\u0301" * 500,
    lambda: "<answer>" * 200,
    lambda: ["A"],
    lambda: {"A": {"B": None}},
    lambda: deep(40),
)


def another_value(entry: dict[str, Value], draw: Draw) -> None:
    """A value of another type or a size that nobody meant."""
    entry[draw.choice(list(entry))] = draw.choice(STRANGE)()


def another_reference(entry: dict[str, Value], draw: Draw) -> None:
    """A picture that lies elsewhere, or a text where none belongs."""
    names = [name for name in ("image", "image_path") if name in entry] or list(entry)
    entry[draw.choice(names)] = draw.choice(REFERENCES)


def lost_key(entry: dict[str, Value], draw: Draw) -> None:
    """A key left out."""
    entry.pop(draw.choice(list(entry)))


def renamed_key(entry: dict[str, Value], draw: Draw) -> None:
    """A key under another name."""
    name = draw.choice(list(entry))
    entry[draw.choice([name.upper(), name + " ", "\ud800", "", "__class__"])] = entry.pop(name)


def swapped_values(entry: dict[str, Value], draw: Draw) -> None:
    """The values of two keys exchanged."""
    first, second = draw.choice(list(entry)), draw.choice(list(entry))
    entry[first], entry[second] = entry[second], entry[first]


VALUES = (another_value, another_reference, lost_key, renamed_key, swapped_values)


def damaged_entries(entries: list[dict[str, Value]], draw: Draw) -> tuple[str, list[Value]]:
    """Some rows of a list changed; which change, and the list."""
    changed: list[Value] = [copy.copy(entry) for entry in entries]
    change = draw.choice(VALUES)
    for _ in range(draw.randint(1, 3)):
        place = draw.randrange(len(changed))
        if draw.random() < 0.1:
            changed[place] = draw.choice(STRANGE)()
        elif isinstance(changed[place], dict) and changed[place]:
            change(changed[place], draw)
    if draw.random() < 0.1:
        changed.insert(draw.randrange(len(changed)), copy.copy(draw.choice(changed)))
    return change.__name__, changed


def written(value: Value, draw: Draw) -> str:
    """JSON text of a value; half of the time without escapes, so that half a surrogate pair is written as it can be."""
    text = json.dumps(value, ensure_ascii=draw.random() < 0.5)
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def damaged_text(text: str, other: str, draw: Draw) -> tuple[str, bytes]:
    """A JSON text damaged as bytes, or with a number or nesting that no parser likes."""
    kinds: list[Any] = [*BYTES, texts_otherwise, "digits", "nested", "doubled", "twice", "endless"]
    kind = draw.choice(kinds)
    if kind == "digits":
        return kind, text.replace('"', "9" * 6000 + '"', 1).replace("[{", "[" + "8" * 6000 + ",{", 1).encode()
    if kind == "nested":
        levels = draw.choice([900, 5000, 200_000])
        return kind, text.replace("{", '{"deep": ' + "[" * levels + "]" * draw.choice([levels, 3]) + ",", 1).encode()
    if kind == "doubled":
        return kind, text.replace("{", '{"image": 5, "image": "x", "id": "1", "id": "1", ', 1).encode()
    if kind in ("twice", "endless"):  # one key of one row, with another value before its own or after a long one
        places = [match.start(1) for match in re.finditer(r'[{,]\s*("\w+": )', text)] or [0]
        at = draw.choice(places)
        key = text[at : text.find(":", at) + 2] if kind == "twice" else '"endless": '
        length = LONGEST_ENTRY + 5 if draw.random() < ENDLESS else 9000
        value = '"x", ' if kind == "twice" else f'"{chr(92) * 2 * 9}{"x" * length}", '
        return kind, (text[:at] + key + value + text[at:]).encode()
    return kind.__name__, kind(text.encode(), other.encode(), draw)


# ------------------------------------------------------------------------------------------------------ the doors


@dataclass
class Log:
    """What happened: counts by (door, kind, outcome), seconds by door, and everything that should not be."""

    keep: Path
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    faults: list[str] = field(default_factory=list)

    def note(self, door: str, kind: str, outcome: str, count: int = 1) -> None:
        """Count a file."""
        self.counts[door, kind, outcome] += count

    def fault(self, door: str, kind: str, what: str, files: dict[str, bytes]) -> None:
        """Keep what broke something, so that it can be looked at."""
        folder = self.keep / f"{len(self.faults):03d}-{door}-{kind}"
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        (folder / "what.txt").write_text(what, encoding="utf-8", errors="backslashreplace")
        self.faults.append(f"{door}, {kind}: {what.strip().splitlines()[-1]:.300} ({folder})")

    @contextmanager
    def watch(self, door: str, kind: str, files: dict[str, bytes], share: int = 1) -> Iterator[None]:
        """Let a `UserError` count as a refusal, anything else and more than SLOW seconds per file as a fault."""
        begun = time.process_time()
        try:
            yield
        except UserError as error:
            self.note(door, kind, "refused by name")
            if kind.startswith("batch"):
                self.fault(door, kind, f"all good rows are lost: {error}", files)
            elif len(str(error)) > 3000 or "\n" in str(error):
                self.fault(door, kind, f"a message of {len(str(error))} characters: {str(error)[:3000]}", files)
        except Exception:
            self.note(door, kind, "TRACEBACK")
            self.fault(door, kind, traceback.format_exc(), files)
        finally:
            spent = time.process_time() - begun
            self.seconds[door] += spent
            if spent > SLOW * share:
                self.fault(door, kind, f"took {spent:.1f} s", files)


class Fuzz:
    """One fuzzing of so many files, in a folder of its own."""

    def __init__(self, folder: Path, seed: int, keep: Path) -> None:
        self.folder, self.draw, self.log = folder, Draw(seed), Log(keep)
        self.pictures = seed_pictures()
        self.model: Path | None = None
        self.reports = 0
        self.files: Counter[str] = Counter()

    def run(self, files: int) -> None:
        """Damage `files` files: 55 % pictures, 25 % question lists, 5 % text questions, 15 % result files."""
        warnings.simplefilter("ignore")  # Pillow's, about every damaged tag
        shares = {"picture": 0.55, "release": 0.1, "list": 0.15, "text": 0.05, "result": 0.15}
        left = {kind: int(files * share) for kind, share in shares.items()}
        left["picture"] += files - sum(left.values())
        for start in range(0, left["picture"], BATCH):
            self._pictures(min(BATCH, left["picture"] - start), with_model=start % MODEL == 0)
        for start in range(0, left["release"], LISTS):
            self._releases(min(LISTS, left["release"] - start))
        self._lists(left["list"])
        self._texts(left["text"])
        self._results(left["result"])

    # ---- pictures: prepare, the rows as training and evaluation open them, and the model

    def _pictures(self, count: int, with_model: bool) -> None:
        root = self._fresh("release")
        kinds: dict[str, str] = {}
        (root / "Images").mkdir(parents=True)
        for number in range(GOOD):
            suffix, data = self.pictures[number * 3 % len(self.pictures)]
            (root / f"Images/good{number}.{suffix}").write_bytes(data)
            kinds[f"Images/good{number}.{suffix}"] = "good"
        for number in range(count):
            suffix, data = self.draw.choice(self.pictures)
            change = self.draw.choice(BYTES)
            name = f"Images/{number:04d}.{suffix}"
            (root / name).write_bytes(change(data, self.draw.choice(self.pictures)[1], self.draw))
            kinds[name] = change.__name__
        self.files["picture"] += count
        rows = [row(number, name) for number, name in enumerate(kinds)]
        self._prepared(root, [release_row(number, name) for number, name in enumerate(kinds)], kinds)
        self._opened(root, rows, kinds)
        if with_model:
            self._answered(root, rows, kinds)

    def _prepared(self, root: Path, rows: list[dict[str, Any]], kinds: dict[str, str]) -> None:
        write(root / "QA_information/Open-access/Fuzzed.json", json.dumps(rows))
        with self.log.watch("prepare", "batch of pictures", {}, share=len(kinds)):
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
            ),  # a row that damage moves to a set of its own, without a picture, makes that set refused
            encoding=ENCODING,
            allow_missing_side=True,
        )
        return prepare(settings)

    def _opened(self, root: Path, rows: list[dict[str, str]], kinds: dict[str, str]) -> None:
        write(root / "list.json", json.dumps(rows))
        table, _ = load_rows(root / "list.json", image_root=root)
        for each in table:
            assert isinstance(each, dict)
            path = Path(each["image"]["path"])
            kind = kinds[f"Images/{path.name}"]
            with self.log.watch("training row", kind, {path.name: path.read_bytes()}):
                try:
                    assert row_pictures(each)[0].size == (384, 384)
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
        with self.log.watch("infer with a model", "batch of pictures", {}, share=len(kinds)):
            infer(settings)
            results = {result.problem: result for result in read_results(output).results}
            for (name, kind), each in zip(kinds.items(), rows, strict=True):
                asked = results[each["problem"]].outcome is not None
                self.log.note("infer with a model", kind, "answered" if asked else "error line with a reason")
                if kind == "good" and not asked:
                    self.log.fault("infer with a model", kind, f"{name} is lost", {})

    # ---- question files

    def _good_folder(self) -> tuple[Path, list[str]]:
        root = self._fresh("release")
        (root / "Images").mkdir(parents=True)
        for number in range(GOOD):
            (root / f"Images/{number}.png").write_bytes(self.pictures[0][1])
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
                lost = [each for each in good_rows(data, entries) if each["problem"] not in there]
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
                found = [each for _, each in rows_of(path)]
                self.log.note("text questions", kind, "read")
                if suffix == "jsonl":
                    whole = [entry for entry in entries if json.dumps(entry).encode() in data.split(b"\n")]
                    if any(entry not in found for entry in whole):
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
            for number, each in enumerate(rows):
                labels = {"modality": list(Modality)[number % 3].value, "task": list(Task)[number % 2].value}
                text = ("<answer>A</answer>", "the answer is B", "I do not know")[number % 3]
                writer.write(judged({**each, **labels}, f"picture {number % 5}", text, 5))  # type: ignore[dict-item]
        whole = path.read_text(encoding="utf-8")
        for _ in range(count):
            kind, data = self._damaged_results(whole)
            path.write_bytes(data)
            with self.log.watch("report", kind, {"out.jsonl": data}):
                self._report(path)
                self.log.note("report", kind, "reported")
        self.files["result"] += count

    def _damaged_results(self, whole: str) -> tuple[str, bytes]:
        if self.draw.random() < 0.5:
            return damaged_text(whole, json.dumps(release_row(3, "x")), self.draw)
        lines = [json.loads(line) for line in whole.splitlines()]
        if self.draw.random() < 0.3:
            kind, lines[0]["manifest"] = "manifest", self._damaged_manifest(lines[0]["manifest"])
        else:
            kind, changed = damaged_entries(lines[1:], self.draw)
            lines[1:] = changed
        return kind, "".join(written(line, self.draw) + "\n" for line in lines).encode()

    def _damaged_manifest(self, manifest: dict[str, Value]) -> dict[str, Value]:
        names = ("checkpoint", "trained_on", "tested_on", "run_dir", "data", "image_root", "split", "options")
        known = dict.fromkeys(names, "x") | {"image": "shown", "samples": 1, "checkpoint_sha256": "x"}
        changed = {**known, **manifest}
        self.draw.choice(VALUES)(changed, self.draw)
        return changed

    def _report(self, path: Path) -> None:
        found = read_results(path)
        table = tabulate(found.results)
        assert all(result.outcome is None or isinstance(result.outcome, Outcome) for result in found.results)
        assert table
        json.dumps(published_form(found.results))
        self.reports += 1
        if self.reports % FULL_REPORT == 1:
            write_report([path], self._fresh("report"), with_items=True)

    def _fresh(self, name: str) -> Path:
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path


# -------------------------------------------------------------------------------------------------------- helpers


@contextmanager
def quiet() -> Iterator[None]:
    """Without what commands print, and what C libraries write about damaged pictures."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def write(path: Path, text: str) -> None:
    """A text file and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def load_set(outcome: Any) -> Iterator[dict[str, Any]]:
    """The pictures of all rows of what `prepare` made, undecoded."""
    for done in outcome.sets:
        for side in ("train", "test"):
            if (done.folder / side).is_dir():
                for each in load_rows(done.folder, side)[0]:
                    assert isinstance(each, dict)
                    assert row_pictures(each)[0].size == (ENCODING.size, ENCODING.size)
                    yield each["image"]


def problems(outcome: Any) -> Iterator[str]:
    """The problems of all rows of what `prepare` made."""
    for done in outcome.sets:
        for side in ("train", "test"):
            if (done.folder / side).is_dir():
                yield from load_rows(done.folder, side)[0]["problem"]


def good_rows(data: bytes, entries: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows of a JSON list that were left as they were and have no key twice, read by Python's own parser."""
    try:
        value = parse_json(data.decode("utf-8-sig"), object_of)
    except ValueError:
        return []
    whole = [each for each in value if repeated_key(each) is None] if isinstance(value, list) else []
    return [entry for entry in entries if entry in whole]


def lines(fuzz: Fuzz, seconds: float) -> Iterator[str]:
    """What is printed: files, outcomes by door, times, and what should not have been."""
    files = ", ".join(f"{count:,} {kind}" for kind, count in fuzz.files.items())
    yield f"{sum(fuzz.files.values()):,} files ({files}) in {seconds:.0f} s"
    doors: dict[str, Counter[str]] = {}
    for (door, kind, outcome), count in fuzz.log.counts.items():
        if kind != "good":
            doors.setdefault(door, Counter())[outcome] += count
    for door, outcomes in doors.items():
        told = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items()))
        yield f"  {door}: {told}; {fuzz.log.seconds[door]:.0f} s of processor time"
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
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        fuzz = Fuzz(Path(folder), flags.seed, flags.keep)
        with quiet():
            fuzz.run(flags.files)
        print("\n".join(lines(fuzz, time.perf_counter() - begun)))
    return int(bool(fuzz.log.faults))
