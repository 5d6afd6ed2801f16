"""Prepare a medical VQA set: read its files, encode every image once, write rows, count and compare.

Unfinished work is in `<output_dir>/.partial_<source>`; a set is renamed when it is complete, with its manifest written
last, so a killed command continues with the images that it has encoded. The same inputs and settings give the same
bytes with any number of processes.
"""

import os
import shutil
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from open_r1.common.atomic_files import (
    publish_folder,
    read_manifest,
    sha256_file,
    write_json,
)
from open_r1.common.errors import UserError
from open_r1.data.arrow_sets import QUESTION_FEATURES, write_dict, write_split
from open_r1.data.key_table import KeyTable
from open_r1.data.preparation.encoded_images import BoundedEncoding, Job, Pack
from open_r1.data.preparation.finished_sets import (
    UNPACKED,
    digest_of,
    finished_manifest,
    refuse_differences,
    size_of,
    unfinished_work,
    write_manifest,
)
from open_r1.data.preparation.overlaps import (
    KEYS_FILE,
    HeldOut,
    SplitKeys,
    keys_in,
    overlaps_between,
    save_keys,
    stored_key,
)
from open_r1.data.rows import Dropped, row_id
from open_r1.data.vqa.forms import SPLITS, input_files
from open_r1.data.vqa.image_files import ImageFiles
from open_r1.data.vqa.questions import ReaderContext
from open_r1.data.vqa.reading import Members, SetReading
from open_r1.data.vqa.registry import SOURCES, source_name
from open_r1.data.vqa.report import AGAINST, REPORT, Prepared, SplitCounts, set_report

FORMAT_VERSION = 1
"""Increased when the same inputs and settings give other bytes."""

ClosedBy = Literal["marked", "yes_no"]


@dataclass(frozen=True)
class VqaPreparation:
    """The settings of `prepare`."""

    source: str  # a name in SOURCES, in any spelling
    inputs: tuple[str, ...]
    output_dir: Path
    image_root: Path | None = None  # default: the input folder
    only: tuple[str, ...] = ()  # parts of the set; default: those that the source names, or all
    closed: ClosedBy = "marked"
    encoding: BoundedEncoding = BoundedEncoding()  # noqa: RUF009 (frozen, too)
    num_workers: int = 1
    limit: int | None = None  # usable questions of each split
    drop_repeats: bool = False
    drop_leaks: bool = False  # questions of other splits than test that show an image of a later split, or of `against`
    overwrite: bool = False
    against: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", source_name(self.source))
        if not self.inputs:
            raise UserError(f"--input is missing: the folder or the files of {SOURCES[self.source].title}")
        if self.image_root is not None and not self.image_root.is_dir():
            raise UserError(f"--image_root {self.image_root} is not a folder; give the one that image names start from")
        if self.num_workers < 1:
            raise UserError(f"--num_workers {self.num_workers} is invalid; give 1 or more processes")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"--limit {self.limit} leaves no question; give 1 or more")
        for folder in self.against:
            if not folder.is_dir():
                raise UserError(f"--against {folder} is not a folder; give a prepared set such as data/VQA/vqa_rad")

    def folder(self, part: str) -> Path:
        """The folder of a set or of a part of it: `vqa_rad`, `slake_en`."""
        name = "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in part)
        return self.output_dir / (f"{self.source}_{name}" if name else self.source)

    def settings(self) -> dict[str, Any]:
        """The settings that the bytes of a set depend on."""
        choices = {"closed": self.closed, "limit": self.limit, "drop_repeats": self.drop_repeats}
        return {**choices, "drop_leaks": self.drop_leaks, **asdict(self.encoding)}

    def held_out(self) -> HeldOut:
        """The images of other sets that nothing but the test split may show."""
        held_out = HeldOut()
        for folder in self.against if self.drop_leaks else ():
            for split, keys in keys_in(folder).items():
                if split != "train":
                    held_out.add(keys)
        return held_out


def prepare(preparation: VqaPreparation) -> list[Prepared]:
    """Build the set, or its parts, unless they are complete; and compare them with each other and with other sets.

    Raises:
        UserError: inputs, settings or the output folder cannot be used, or the disk is full. Encoded images are kept
            for the next run, unless the disk is full.
    """
    for folder in preparation.against:
        keys_in(folder)  # a wrong folder is named before the work, not after it
    stage = preparation.output_dir / f".partial_{preparation.source}"
    with unfinished_work(preparation.output_dir, stage, "encoded"):
        prepared = _Build(preparation, stage).run()
        others = dict.fromkeys([*(data_set.folder for data_set in prepared), *preparation.against])
        return [_compared(data_set, list(others)) for data_set in prepared]


def _compared(data_set: Prepared, others: Sequence[Path]) -> Prepared:
    """The set with its overlaps with other sets, which are also kept in its folder."""
    others = [folder for folder in others if not os.path.samefile(folder, data_set.folder)]
    if not others:
        return data_set
    keys = keys_in(data_set.folder)
    against = {str(folder): overlaps_between(keys, folder) for folder in others}
    write_json(data_set.folder / AGAINST, against)
    return Prepared(data_set.folder, data_set.is_new, data_set.report, against)


def _nothing_left(split: str, counts: SplitCounts, dropped: Sequence[Dropped]) -> str:
    """Why a split has no rows, and what to do."""
    if counts.leaking:
        return (
            f"every {split} question shows an image of a later split or of --against, and --drop_leaks leaves it out; "
            "leave that flag away, or the files of this split"
        )
    example = f"{dropped[-1].where}: {dropped[-1].detail}" if dropped else "there are none"
    return (
        f"no {split} question has images that can be used ({example}); give the folder of its images with "
        "--image_root, or the files of the other splits alone with --input"
    )


class _Build:
    """The state of one `prepare`, step by step."""

    def __init__(self, preparation: VqaPreparation, stage: Path):
        self.preparation, self.stage = preparation, stage
        inputs = input_files(preparation.source, preparation.inputs, SOURCES)
        self.form = inputs.files[0].form
        if preparation.only and self.form.set_of is None:
            raise UserError(f"--only {' '.join(preparation.only)}: {self.form.name} has no parts; leave the flag out")
        self.unread = [str(path.relative_to(inputs.folder)) for path in inputs.unread]
        unpacked = stage / UNPACKED if self.form.embeds_images else None
        if unpacked is not None:
            unpacked.mkdir(exist_ok=True)
        self.images = ImageFiles(preparation.image_root or inputs.folder, self.form.image_folders, unpacked)
        self.context = ReaderContext(self.images)
        parts = preparation.only or tuple(SOURCES[preparation.source].parts)
        self.reading = SetReading(inputs.files, self.context, stage / "questions.jsonl", parts, preparation.limit)

    def run(self) -> list[Prepared]:
        self.reading.read()
        self.image_numbers = {part: self.reading.images_of(part) for part in self.reading.parts}
        inputs = self._inputs()
        prepared = {part: self._finished(part, inputs[part]) for part in self.reading.parts}
        unfinished = [part for part, data_set in prepared.items() if data_set is None]
        if unfinished:
            references = self.reading.references
            self.stored_keys = array("Q", [0]) * len(references)
            pack = Pack(self.stage / "encoded", self.images.root, references, self.preparation.encoding)
            try:
                pack.start(self._jobs(unfinished), self.preparation.num_workers)
                for part in unfinished:
                    prepared[part] = self._write(part, inputs[part], pack)
            finally:
                pack.close()
        return [data_set for data_set in prepared.values() if data_set is not None]

    # ---- complete sets

    def _inputs(self) -> dict[str, dict[str, str]]:
        """The inputs of each part: a hash of all question files, and one of the names and sizes of its images."""
        digest = digest_of(f"{file.path.name} {sha256_file(file.path)}" for file in self.reading.files)
        held_out = digest_of(self.preparation.held_out().lines())
        inputs = {}
        for part in self.reading.parts:
            names = sorted(self.reading.references.texts(self.image_numbers[part]))
            sizes = array("q", (size_of(name, self.images.root) for name in names))
            if all(size == -1 for size in sizes):
                raise UserError(
                    f"none of the {len(names)} images of {self.form.name} is below {self.images.root}, for example "
                    f"{names[0]!r}; give the folder that holds them as --image_root"
                )
            lines = (f"{name} {size}" for name, size in zip(names, sizes, strict=True))
            files = {"form": self.form.name, "question files": digest, "images": digest_of(lines)}
            inputs[part] = {**files, "held out": held_out}
        return inputs

    def _finished(self, part: str, inputs: dict[str, str]) -> Prepared | None:
        """The set if it is complete; None if it is to be built."""
        folder, remedy = self.preparation.folder(part), "--overwrite builds it anew"
        if self.preparation.overwrite:
            return None
        manifest = finished_manifest(folder, remedy)
        if manifest is None:
            return None
        expected = {"version": FORMAT_VERSION, **self.preparation.settings(), **inputs}
        recorded = {"version": manifest.get("version"), **manifest.get("settings", {}), **manifest.get("inputs", {})}
        refuse_differences(folder, expected, recorded, remedy)
        return Prepared(folder, False, manifest["report"])

    # ---- one set

    def _jobs(self, parts: Iterable[str]) -> Iterator[Job]:
        """The images in the order in which the sets will be written."""
        visited = bytearray(len(self.reading.references))
        for part in parts:
            numbers = self.image_numbers[part]
            for number, reference in zip(numbers, self.reading.references.texts(numbers), strict=True):
                if not visited[number]:
                    visited[number] = 1
                    yield Job(number, reference, True)

    def _write(self, part: str, inputs: dict[str, str], pack: Pack) -> Prepared:
        final, reading = self.preparation.folder(part), self.reading.parts[part]
        stage = self.stage / final.name
        shutil.rmtree(stage, ignore_errors=True)  # left by a killed run
        stage.mkdir()
        hashes: dict[Path, str] = {}
        keys: dict[str, SplitKeys] = {}
        counts: dict[str, SplitCounts] = {}
        dropped = list(reading.dropped)
        held_out = self.preparation.held_out()
        splits = [split for split in SPLITS if split in reading.splits]
        for split in reversed(splits):  # test first: what it shows may not be trained on
            keys[split], counts[split] = SplitKeys(), SplitCounts(reading.splits[split].beyond_limit)
            allowed = HeldOut() if split == "test" or not self.preparation.drop_leaks else held_out
            rows = self._rows(split, reading.splits[split], pack, allowed, keys[split], counts[split], dropped)
            files = write_split(stage / split, rows, QUESTION_FEATURES, split)
            hashes |= {stage / split / name: digest for name, digest in files.items()}
            if not counts[split].rows:
                raise UserError(f"{final.name}: {_nothing_left(split, counts[split], dropped)}")
            held_out.add(keys[split])
        write_dict(stage, splits)
        keys = {split: keys[split] for split in splits}
        report = set_report(self._about(part), {split: counts[split] for split in splits}, keys, dropped)
        write_json(stage / REPORT, report)
        save_keys(stage / KEYS_FILE, keys)
        content = {"version": FORMAT_VERSION, "kind": "vqa", "settings": self.preparation.settings(), "inputs": inputs}
        write_manifest(stage, {**content, "report": report}, hashes)
        if self.preparation.overwrite and read_manifest(final) is not None:
            shutil.rmtree(final)
        publish_folder(stage, final)
        return Prepared(final, True, report)

    def _about(self, part: str) -> dict[str, Any]:
        """What the report of a part begins with."""
        return {
            "source": self.preparation.source,
            "part": part,
            "form": self.form.name,
            "files": [file.path.name for file in self.reading.files],
            "files not read": self.unread,
            "closed by": self.preparation.closed,
            "repeats are dropped": self.preparation.drop_repeats,
            "folded": dict(sorted(self.context.folded.items())),
            "left out": dict(sorted(self.reading.left_out.items())),
        }

    def _rows(
        self,
        split: str,
        members: Members,
        pack: Pack,
        held_out: HeldOut,
        keys: SplitKeys,
        counts: SplitCounts,
        dropped: list[Dropped],
    ) -> Iterator[dict[str, Any]]:
        """The rows of one split that show no image held out, as images get ready; fills the last three arguments."""
        first_ones, repeats = KeyTable(), Counter[int]()
        questions = self.reading.questions(members.places)
        title = f"{self.preparation.source} {split}"
        for question in tqdm(questions, total=len(members.places), desc=title, unit="", disable=None):
            indices = [self.reading.references.number(reference) for reference in question.images]
            failed = next((index for index in indices if not pack.has(index)), None)
            if failed is not None:
                error, where = pack.failed[failed], f"{split}: {question.problem:.200}"
                dropped.append(Dropped(where, error.reason, str(error), question.modality))
                continue
            images = [pack.read(index) for index in indices]
            for index, image in zip(indices, images, strict=True):
                self.stored_keys[index] = self.stored_keys[index] or stored_key(image)
            image_keys = [(pack.content(index) or 0, self.stored_keys[index]) for index in indices]
            if held_out.holds_any(image_keys):
                counts.leaking += 1
                continue
            originals = " ".join(f"{original:016x}" for original, _ in image_keys)
            name = row_id(originals, question.problem, question.solution)
            names = len(first_ones)
            if (number := first_ones.add(int(name, 16))) < names:
                counts.repeated += 1
                repeats[number] += 1
                if self.preparation.drop_repeats:
                    continue
                name = row_id(f"{name} {repeats[number] + 1}", question.problem, question.solution)
            answer_type = question.answer_type(self.preparation.closed == "marked")
            keys.add(image_keys, question.problem, question.solution)
            counts.add(question, answer_type)
            cells = zip(images, question.images, strict=True)
            yield {
                "images": [{"bytes": image, "path": reference} for image, reference in cells],
                "problem": question.problem,
                "solution": question.solution,
                "answer_type": answer_type.value,
                "aliases": list(question.aliases),
                "id": name,
                "source": question.source,
                "modality": question.modality,
                "task": None,
                "subject": question.subject,
            }
