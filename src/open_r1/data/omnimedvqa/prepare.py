"""Build the data sets `data/VQA/<name>_384` from OmniMedVQA's release or Med-R1's split files.

Steps: read and check every question (`catalogue`), draw train and test (`splits`), encode every image once
(`encoded_images`), write each set (`arrow_sets`). Unfinished work is in `<output_dir>/.partial`; a set is renamed when
it is complete, and its manifest is written last. The same inputs and settings give the same bytes with any number of
processes. Memory does not grow with the images, and by some two hundred bytes per question.
"""

import shutil
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import compress
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from open_r1.common.atomic_files import publish_folder, sha256_file, write_json
from open_r1.common.errors import UserError
from open_r1.data.arrow_sets import FEATURES, write_dict, write_split
from open_r1.data.images import SIZE
from open_r1.data.omnimedvqa.catalogue import SIDES, Label, Members, Questions
from open_r1.data.omnimedvqa.prepared_files import FORMAT_VERSION, format_of, number_of
from open_r1.data.omnimedvqa.source import release_files, split_files
from open_r1.data.omnimedvqa.splits import draw_per_image, draw_per_question
from open_r1.data.omnimedvqa.summary import REPORT, Outcome, Prepared, set_report
from open_r1.data.preparation.encoded_images import Encoding, Job, Pack
from open_r1.data.preparation.finished_sets import (
    digest_of,
    finished_manifest,
    refuse_differences,
    size_of,
    unfinished_work,
    write_manifest,
)
from open_r1.data.preparation.overlaps import KEYS_FILE, SplitKeys, save_keys, stored_key
from open_r1.data.rows import Dropped
from open_r1.vocabulary.labels import Family, Modality, Split, Task, family_of

SplitKind = Literal["published", "random", "image_disjoint"]

_STAGE = ".partial"


@dataclass(frozen=True)
class Preparation:
    """The settings of `prepare`: inputs, output and split."""

    output_dir: Path
    release: Path | None = None  # either this
    splits_dir: Path | None = None  # or this and image_root
    image_root: Path | None = None  # default for a release: the release
    split: SplitKind | None = None  # default: published for split files, random for a release
    only: tuple[Label, ...] = ()  # default: every label in the data
    by: tuple[Family, ...] = ("modality", "task")
    seed: int = 42
    num_workers: int = 1
    encoding: Encoding = Encoding()  # noqa: RUF009 (frozen, too)
    allow_missing_side: bool = False

    def __post_init__(self):
        if (self.release is None) == (self.splits_dir is None):
            raise UserError("give either --release or --splits_dir as the source of the data")
        if self.splits_dir is not None and self.image_root is None:
            raise UserError("--splits_dir needs --image_root, the folder that holds Images/")
        for folder in (self.release, self.splits_dir, self.image_root):
            if folder is not None and not folder.is_dir():
                raise UserError(f"{folder} is not a readable folder")
        if self.release is not None and self.split == "published":
            raise UserError("a release has no published split: use --split random or image_disjoint")
        if self.num_workers < 1:
            raise UserError(f"--num_workers {self.num_workers} is invalid; give 1 or more processes")
        excluded = [label for label in self.only if family_of(label) not in self.by]
        if excluded:
            raise UserError(f"--only {excluded[0]} is a {family_of(excluded[0])}, which --by leaves out")

    @property
    def kind(self) -> SplitKind:
        """The split that is made."""
        return self.split or ("published" if self.release is None else "random")

    @property
    def images(self) -> Path:
        """The folder that image paths are relative to."""
        root = self.image_root or self.release
        assert root is not None
        return root

    def folder(self, label: Label) -> Path:
        """The folder of a label's set: `CT_384`, `Disease_Diagnosis_384`."""
        return self.output_dir / label.folder.replace(f"_{SIZE}", f"_{self.encoding.size}")

    def settings(self) -> dict[str, Any]:
        """The settings that the bytes of a set depend on."""
        seed = None if self.kind == "published" else self.seed
        return {"split": self.kind, "seed": seed, **asdict(self.encoding)}


def prepare(preparation: Preparation) -> Outcome:
    """Build every requested set that is not complete yet.

    Raises:
        UserError: inputs, settings or the output folder cannot be used, or the disk is full. Complete sets stay;
            encoded images are kept for the next run, unless the disk is full.
    """
    stage = preparation.output_dir / _STAGE
    with unfinished_work(preparation.output_dir, stage, "pictures"):
        return _Build(preparation, stage).run()


class _Build:
    """The state of one `prepare`, step by step."""

    def __init__(self, preparation: Preparation, stage: Path):
        self.preparation, self.stage = preparation, stage
        self.questions = Questions(stage / "questions.jsonl")

    def run(self) -> Outcome:
        self._read()
        labels = self._labels()
        members: dict[Label, Members] = {}
        if self.preparation.kind != "image_disjoint":
            members = self._split(labels, None)
        inputs = self._inputs(labels)
        prepared = {label: self._finished(label, inputs[label]) for label in labels}
        todo = [label for label in labels if prepared[label] is None]
        if todo:
            pack = self._start_encoding(todo, members)
            try:
                members = members or self._split(labels, pack)
                for label in todo:
                    prepared[label] = self._write(label, members[label], inputs[label], pack)
            finally:
                pack.close()
        sets = [data_set for data_set in prepared.values() if data_set is not None]
        rows = [row for data_set in sets for row in data_set.report["dropped"]] + self._of_no_set()
        unique = {(row["where"], row["reason"], row["detail"]): row for row in rows}
        unlabelled: dict[Family, int] = {family: self.questions.unlabelled(family) for family in self.preparation.by}
        return Outcome(sets, list(unique.values()), unlabelled)

    # ---- requested sets

    def _read(self) -> None:
        if self.preparation.release is not None:
            self.questions.read_release(self.preparation.release)
        else:
            assert self.preparation.splits_dir is not None
            self.questions.read_splits(self.preparation.splits_dir)
        if not len(self.questions):
            examples = "; ".join(f"{row.where}: {row.detail}" for row in self.questions.dropped[:3])
            raise UserError(f"none of the {len(self.questions.dropped)} questions can be used: {examples}")

    def _has(self, label: Label) -> bool:
        if self.preparation.kind == "published":
            return any(self.questions.published(label).values())
        return bool(self.questions.asking(label))

    def _labels(self) -> list[Label]:
        all_labels: list[Label] = [*Modality, *Task]
        available = [label for label in all_labels if family_of(label) in self.preparation.by and self._has(label)]
        missing = [label for label in self.preparation.only if label not in available]
        if missing:
            raise UserError(
                f"there is no question for --only {', '.join(missing)}; available: {', '.join(available) or 'none'}"
            )
        return [label for label in available if label in (self.preparation.only or available)]

    def _split(self, labels: list[Label], pack: Pack | None) -> dict[Label, Members]:
        """Train and test of every label; a pack is needed to recognize equal images with different names."""
        if self.preparation.kind == "published":
            members = {label: self.questions.published(label) for label in labels}
        else:
            sides = self._draw(pack)
            members = {label: self.questions.drawn(label, sides) for label in labels}
        if not self.preparation.allow_missing_side:
            missing_sides = [
                f"{self.preparation.folder(label).name} has no {side} question"
                for label in labels
                for side in SIDES
                if not members[label][side]
            ]
            if missing_sides:
                usable = [label for label in labels if all(members[label].values())]
                hint = f"--only {' '.join(repr(str(label)) for label in usable)}, or " if usable else ""
                raise UserError(
                    f"{'; '.join(missing_sides)}: training needs train and evaluation needs test; use {hint}"
                    "--allow_missing_side to build what is there"
                )
        return members

    def _draw(self, pack: Pack | None) -> bytearray:
        questions, seed = self.questions, self.preparation.seed
        if pack is None:
            return draw_per_question(questions.cells(), questions.number, seed)
        # An unreadable file is identified by its path, as a number beyond the range of the 64-bit hashes.
        identity = [
            (1 << 64) + number_of(path) if (content := pack.content(index)) is None else content
            for index, path in enumerate(questions.images.texts(range(len(questions.images))))
        ]
        return draw_per_image(questions.cells(), [identity[index] for index in questions.image_index], seed)

    # ---- complete sets

    def _inputs(self, labels: list[Label]) -> dict[Label, dict[str, str]]:
        """The inputs of each set: a hash of all question files, and one of the paths and sizes of its images."""
        p = self.preparation
        if p.release is not None:
            files = [(path.relative_to(p.release), path) for path in release_files(p.release)]
        else:
            assert p.splits_dir is not None
            files = [(path.relative_to(p.splits_dir), path) for path, _ in split_files(p.splits_dir)]
        digest = digest_of(f"{name} {sha256_file(path)}" for name, path in files)
        paths = self.questions.images
        sizes = array("q", [-2]) * len(paths)  # bytes; -1 not there, -2 not looked at
        inputs = {}
        for label in labels:
            image_indices = range(len(paths)) if p.kind == "image_disjoint" else self._images_of(label)
            for index, path in zip(image_indices, paths.texts(image_indices), strict=True):
                if sizes[index] == -2:
                    sizes[index] = size_of(path, p.images)
            if all(sizes[index] == -1 for index in image_indices):
                raise UserError(
                    f"none of the {len(image_indices)} images of {label} is below {p.images}, for example "
                    f"{next(paths.texts(image_indices))!r}; give the folder that holds Images/ as --image_root"
                )
            files_of_label = zip(image_indices, paths.texts(image_indices), strict=True)
            lines = (f"{path} {sizes[index]}" for index, path in files_of_label)
            inputs[label] = {"question files": digest, "pictures": digest_of(lines)}
        return inputs

    def _images_of(self, label: Label) -> array:
        if self.preparation.kind == "published":
            members = self.questions.published(label)
            indices: Iterable[int] = (index for side in SIDES for index in members[side])
        else:
            indices = self.questions.asking(label)
        is_shown = bytearray(len(self.questions.images))
        for index in indices:
            is_shown[self.questions.image_index[index]] = 1
        return array("I", compress(range(len(is_shown)), is_shown))

    def _finished(self, label: Label, inputs: dict[str, str]) -> Prepared | None:
        """The set if it is complete; None if it is to be built."""
        folder = self.preparation.folder(label)
        manifest = finished_manifest(folder)
        if manifest is None:
            return None
        expected = {"version": FORMAT_VERSION, **self.preparation.settings(), **inputs}
        recorded = {
            "version": format_of(manifest),
            **manifest.get("settings", {}),
            **manifest.get("inputs", {}),
        }
        refuse_differences(folder, expected, recorded)
        return Prepared(folder, False, manifest["report"])

    # ---- images

    def _start_encoding(self, labels: list[Label], members: dict[Label, Members]) -> Pack:
        """Start the worker processes, in the order in which the sets will be written."""
        paths = self.questions.images
        pack = Pack(self.stage / "pictures", self.preparation.images, paths, self.preparation.encoding)
        if members:
            order = array("I", self._in_order_of_use(labels, members))
            jobs = (Job(index, path, True) for index, path in zip(order, paths.texts(order), strict=True))
            pack.start(jobs, self.preparation.num_workers)
            return pack
        # A draw per image needs all images, or it would depend on which sets are built.
        is_shown = bytearray(len(paths))
        for label in labels:
            for index in self._images_of(label):
                is_shown[index] = 1
        every_path = enumerate(paths.texts(range(len(paths))))
        jobs = (Job(index, path, bool(is_shown[index])) for index, path in every_path)
        pack.start(jobs, self.preparation.num_workers)
        with tqdm(total=len(paths), desc="pictures", unit="", disable=None) as bar:
            for count in pack.finish():
                bar.update(count)
        return pack

    def _in_order_of_use(self, labels: list[Label], members: dict[Label, Members]) -> Iterator[int]:
        visited = bytearray(len(self.questions.images))
        for label in labels:
            for side in SIDES:
                for question in members[label][side]:
                    index = self.questions.image_index[question]
                    if not visited[index]:
                        visited[index] = 1
                        yield index

    # ---- one set

    def _write(self, label: Label, members: Members, inputs: dict[str, str], pack: Pack) -> Prepared:
        final = self.preparation.folder(label)
        stage = self.stage / final.name
        shutil.rmtree(stage, ignore_errors=True)  # left by a killed run
        stage.mkdir()
        dropped = [row for row in self.questions.dropped if label in (row.modality, row.task)]
        used: Members = {side: array("I") for side in SIDES}
        keys: dict[str, SplitKeys] = {}
        hashes: dict[Path, str] = {}
        sides: list[Split] = [side for side in SIDES if members[side]]
        with tqdm(total=sum(map(len, members.values())), desc=final.name, unit="", disable=None) as bar:
            for side in sides:
                keys[side] = SplitKeys()
                rows = self._rows(members[side], pack, used[side], dropped, keys[side], bar)
                files = write_split(stage / side, rows, FEATURES, side)
                hashes |= {stage / side / name: digest for name, digest in files.items()}
                if not used[side]:
                    raise UserError(
                        f"{final.name}: none of the {len(members[side])} {side} questions has an image that "
                        f"can be used, for example {dropped[-1].where}: {dropped[-1].detail}"
                    )
        write_dict(stage, [*sides])
        report = set_report(label, self.questions, used, pack.content, dropped)
        write_json(stage / REPORT, report)
        save_keys(stage / KEYS_FILE, keys)
        settings = self.preparation.settings()
        content = {"version": FORMAT_VERSION, "label": label, "settings": settings, "inputs": inputs, "report": report}
        write_manifest(stage, content, hashes)
        publish_folder(stage, final)
        return Prepared(final, True, report)

    def _rows(
        self, indices: array, pack: Pack, used: array, dropped: list[Dropped], keys: SplitKeys, bar: tqdm
    ) -> Iterator[dict[str, Any]]:
        """The rows of one side as their images get ready; fills `used`, `dropped` and `keys`."""
        questions = self.questions
        for index, texts in zip(indices, questions.texts(indices), strict=True):
            bar.update()
            image, modality, task = questions.image_index[index], questions.modality(index), questions.task(index)
            if not pack.has(image):
                error = pack.failed[image]
                where = f"{texts.image}: {texts.problem}"
                dropped.append(Dropped(where, error.reason, str(error), modality, task))
                continue
            used.append(index)
            data = pack.read(image)
            keys.add([(pack.content(image) or 0, stored_key(data))], texts.problem, texts.solution)
            yield {
                "image": {"bytes": data, "path": texts.image},
                "problem": texts.problem,
                "solution": texts.solution,
                "id": f"{questions.number[index]:016x}",
                "source": texts.source,
                "modality": modality,
                "task": task,
            }

    def _of_no_set(self) -> list[dict[str, Any]]:
        """Dropped rows without a label, which belong to no set."""
        return [asdict(row) for row in self.questions.dropped if row.modality is None and row.task is None]
