"""Draw and write text question sets: the three training mixtures of open-medical-r1, and test folders of benchmarks.

A folder holds the same rows three times: as JSON lines and Parquet for other tools, and as the Arrow set that
`data.loading.load_rows` loads, so that `--dataset_name FOLDER` and `--prompt_path FOLDER` accept it like a set with
images. The same inputs and settings give the same bytes; the manifest is written last.
"""

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from open_r1.common.atomic_files import MANIFEST, DiskError, sha256_file, staged_folder, write_atomically, write_json
from open_r1.common.errors import UserError
from open_r1.data.arrow_sets import FEATURES, write_dict, write_split
from open_r1.data.text.questions import Reading, TextQuestion
from open_r1.data.text.sources import read_file
from open_r1.vocabulary.labels import Split

FORMAT_VERSION = 2
"""Increased when the same inputs and settings give other bytes."""

COLUMNS = ("id", "problem", "solution", "question", "options", "answer", "source", "question_type", "origin")
"""The columns of the JSON lines and Parquet files; each is a text or null, `options` a list of texts."""

USMLE_NUMS = {1: 1090, 2: 600, 3: 0}
"""MedQA questions in the published data sets 1, 2 and 3."""
MEDXPERTQA_ROWS = 2450
"""Text questions in MedXpertQA's release, of which 20 % are 490."""


@dataclass(frozen=True)
class Mixture:
    """The flags of scripts/data_prepare.py."""

    medqa_usmle_root: Path | None = None
    medxpertqa_root: Path | None = None
    dataset: int | None = None
    usmle_nums: int | None = None
    xpert_test_size: float = 0.8
    seed: int = 42

    def __post_init__(self) -> None:
        if self.dataset not in (None, *USMLE_NUMS):
            raise UserError(f"--dataset {self.dataset} does not exist; published are {', '.join(map(str, USMLE_NUMS))}")
        if self.usmle_nums is not None and self.usmle_nums < 1:
            raise UserError(f"--usmle_nums {self.usmle_nums}: give at least 1, or --dataset 3 for no MedQA question")
        if self.dataset == 3 and self.usmle_nums is not None:
            raise UserError(f"--usmle_nums {self.usmle_nums}: data set 3 holds no MedQA question; leave the flag out")
        if not 0 < self.xpert_test_size < 1:
            raise UserError(f"--xpert_test_size {self.xpert_test_size} must lie between 0 and 1; published is 0.8")
        if self.medqa_usmle_root is None and self.wanted_medqa:
            raise UserError("--medqa_usmle_root is missing: the folder that holds MedQA's train.jsonl")
        if self.medxpertqa_root is None and self.dataset in (2, 3):
            raise UserError(f"--medxpertqa_root is missing: data set {self.dataset} holds 20 % of MedXpertQA")

    @property
    def wanted_medqa(self) -> int:
        """MedQA questions to train on."""
        return self.usmle_nums or USMLE_NUMS[self.dataset or 1]

    @property
    def trains_on_medxpertqa(self) -> bool:
        """Whether the part of MedXpertQA outside its test set is trained on."""
        return self.medxpertqa_root is not None and self.dataset != 1


def mix(mixture: Mixture, output_dir: Path) -> dict[str, Any]:
    """Build one training set, and MedXpertQA's test set if its root is given; returns the manifest.

    Raises:
        UserError: a file is missing or unusable, a source has too few questions, or the output exists.
    """
    train: list[TextQuestion] = []
    test: list[TextQuestion] = []
    readings: dict[str, Reading] = {}
    paths: dict[str, Path] = {}
    if mixture.wanted_medqa and mixture.medqa_usmle_root is not None:
        paths["medqa"] = _file_in(mixture.medqa_usmle_root, "train.jsonl", "--medqa_usmle_root")
        readings["medqa"] = read_file("medqa", paths["medqa"])
        questions = readings["medqa"].questions
        if len(questions) < mixture.wanted_medqa:
            raise UserError(
                f"{paths['medqa']} holds {len(questions)} usable questions ({len(readings['medqa'].dropped)} dropped), "
                f"fewer than the {mixture.wanted_medqa} asked for, and none is drawn twice; "
                f"ask for at most that many with --usmle_nums {len(questions)}"
            )
        train += draw(questions, mixture.wanted_medqa, mixture.seed)
    if mixture.medxpertqa_root is not None:
        paths["medxpertqa"] = _file_in(mixture.medxpertqa_root, "Text/test.jsonl", "--medxpertqa_root")
        readings["medxpertqa"] = read_file("medxpertqa", paths["medxpertqa"])
        questions = readings["medxpertqa"].questions
        test_count = math.ceil(len(questions) * mixture.xpert_test_size - 1e-9)
        if not 0 < test_count < len(questions):
            raise UserError(
                f"--xpert_test_size {mixture.xpert_test_size} of {len(questions)} questions leaves "
                f"{len(questions) - test_count} to train on and {test_count} to test on; give another share"
            )
        chosen = draw(questions, len(questions) - test_count, mixture.seed)
        train_ids = {question.id for question in chosen}
        test = [question for question in questions if question.id not in train_ids]
        train += chosen if mixture.trains_on_medxpertqa else []
    settings = {
        "dataset": mixture.dataset,
        "usmle_nums": mixture.wanted_medqa,
        "xpert_test_size": mixture.xpert_test_size if mixture.medxpertqa_root else None,
        "seed": mixture.seed,
    }
    splits: dict[Split, list[TextQuestion]] = {"train": train}
    if test:
        splits["test"] = test
    return write_set(output_dir, splits, readings, paths, settings)


def _file_in(root: Path, name: str, flag: str) -> Path:
    path = root / name
    if not root.is_dir():
        raise UserError(f"{flag} {root} is no folder; give the one that holds {name}")
    if not path.is_file():
        raise UserError(f"{flag} {root} has another layout: {name} is not in it; give the folder that holds {name}")
    return path


def draw(questions: Sequence[TextQuestion], count: int, seed: int) -> list[TextQuestion]:
    """Draw `count` questions without replacement, stratified by question type (largest remainder), in their order.

    The draw depends on the seed and the content of the questions, not on the order of the file.
    """
    assert 0 <= count <= len(questions)
    strata: dict[str, list[TextQuestion]] = defaultdict(list)
    for question in questions:
        strata[question.question_type or ""].append(question)
    shares = {kind: count * len(members) / len(questions) for kind, members in strata.items()}
    sizes = {kind: math.floor(share) for kind, share in shares.items()}
    by_remainder = sorted(shares, key=lambda kind: (sizes[kind] - shares[kind], kind))
    for kind in by_remainder[: count - sum(sizes.values())]:
        sizes[kind] += 1
    chosen: set[str] = set()
    for kind, members in strata.items():
        lots = sorted(members, key=lambda question: hashlib.sha256(f"{seed}:{question.id}".encode()).digest())
        chosen |= {question.id for question in lots[: sizes[kind]]}
    return [question for question in questions if question.id in chosen]


# ----------------------------------------------------------------------------------------------------- benchmarks


@dataclass(frozen=True)
class Benchmark:
    """A file of one of `sources.SETS`, from which folders with one split are written."""

    name: str
    path: Path
    split: Split = "test"
    seed: int = 42
    medmcqa_cop: int | None = None


def prepare_benchmark(benchmark: Benchmark, output_dir: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Write `output_dir/<source>` for every source in the file; returns each folder with its manifest.

    Raises:
        UserError: the file is not of that set, or folders exist already; the others have been written.
    """
    reading = read_file(benchmark.name, benchmark.path, benchmark.seed, benchmark.medmcqa_cop)
    by_source: dict[str, list[TextQuestion]] = defaultdict(list)
    for question in reading.questions:
        by_source[question.source].append(question)
    settings: dict[str, Any] = {
        "benchmark": benchmark.name,
        "seed": benchmark.seed if benchmark.name == "gpqa" else None,
    }
    written_sets, problems = [], []
    for source, questions in by_source.items():
        folder = output_dir / "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in source)
        readings, paths = {benchmark.name: reading}, {benchmark.name: benchmark.path}
        try:
            written_sets.append((folder, write_set(folder, {benchmark.split: questions}, readings, paths, settings)))
        except DiskError:
            raise
        except UserError as error:
            problems.append(str(error))
    if problems:
        note = f"; written: {', '.join(str(folder) for folder, _ in written_sets)}" if written_sets else ""
        raise UserError("; ".join(problems) + note)
    return written_sets


# -------------------------------------------------------------------------------------------------------- writing


def write_set(
    folder: Path,
    splits: Mapping[Split, Sequence[TextQuestion]],
    readings: Mapping[str, Reading],
    paths: Mapping[str, Path],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Write a set in its three forms and the manifest. The folder is either complete or absent.

    Raises:
        UserError: the folder is not empty, or the disk is full.
    """
    shared_ids = {question.id for question in splits.get("train", ())} & {q.id for q in splits.get("test", ())}
    assert not shared_ids, "a question on both sides"
    with staged_folder(folder) as stage:
        for split, questions in splits.items():
            rows = [file_row(question) for question in questions]
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_atomically(stage / f"{split}.jsonl", "".join(lines))
            _write_parquet(stage / f"{split}.parquet", rows)
            write_split(stage / split, (_arrow_row(question) for question in questions), FEATURES, split)
        write_dict(stage, [*splits])
        manifest = {
            "version": FORMAT_VERSION,
            "kind": "text",
            "settings": dict(settings),
            "columns": COLUMNS,
            "inputs": {name: _input(paths[name], reading) for name, reading in readings.items()},
            "rows": {split: _counts(questions) for split, questions in splits.items()},
            "outputs": {
                str(path.relative_to(stage)): {"sha256": sha256_file(path), "bytes": path.stat().st_size}
                for path in sorted(stage.rglob("*"))
                if path.is_file()
            },
        }
        write_json(stage / MANIFEST, manifest)
    return manifest


def file_row(question: TextQuestion) -> dict[str, Any]:
    """The row of a question in JSON lines and Parquet: `COLUMNS`, the same in every row."""
    values = {
        "id": question.id,
        "problem": question.problem,
        "solution": question.solution,
        "question": question.question,
        "options": list(question.options),
        "answer": question.letter,
        "source": question.source,
        "question_type": question.question_type,
        "origin": question.origin,
    }
    return {name: values[name] for name in COLUMNS}


def _arrow_row(question: TextQuestion) -> dict[str, Any]:
    labels = {"source": question.source, "image": None, "modality": None, "task": None}
    return {"problem": question.problem, "solution": question.solution, "id": question.id, **labels}


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {name: pa.list_(pa.string()) if name == "options" else pa.string() for name in COLUMNS}
    schema = pa.schema(list(kinds.items()))
    columns = [pa.array([row[name] for row in rows], kinds[name]) for name in COLUMNS]
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), path)


def _input(path: Path, reading: Reading) -> dict[str, Any]:
    return {
        "file": path.name,
        "sha256": sha256_file(path),
        "usable": len(reading.questions),
        "other_subjects": reading.other_subjects,
        "dropped": [asdict(row) for row in reading.dropped],
        "notes": reading.notes,
    }


def _counts(questions: Iterable[TextQuestion]) -> dict[str, Any]:
    questions = list(questions)
    return {
        "n": len(questions),
        "source": dict(Counter(question.source for question in questions)),
        "question_type": dict(Counter(question.question_type or "" for question in questions)),
        "options": {str(n): count for n, count in sorted(Counter(len(q.options) for q in questions).items())},
    }


def report_lines(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Lines for the user: what was written and what was dropped."""
    lines = [f"{folder}: " + ", ".join(f"{split} {rows['n']:,}" for split, rows in manifest["rows"].items())]
    for split, rows in manifest["rows"].items():
        counts = [f"{name} {count:,}" for name, count in rows["source"].items()]
        lines.append(f"  {split}: " + ", ".join(counts))
    for name, read in manifest["inputs"].items():
        reasons = Counter(row["reason"] for row in read["dropped"])
        facts = [f"{name}: {read['usable']:,} usable questions in {read['file']}", *read["notes"]]
        if read["other_subjects"]:
            facts.append(f"{read['other_subjects']:,} of other subjects")
        if reasons:
            facts.append("dropped " + ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()))
            facts += [f"{row['where']}: {row['detail']}" for row in read["dropped"][:3]]
        lines.append("  " + "; ".join(facts))
        if name == "medxpertqa" and "train" in manifest["rows"] and read["usable"] != MEDXPERTQA_ROWS:
            lines.append(
                f"  MedXpertQA's release has {MEDXPERTQA_ROWS:,} text questions; this file is another selection"
            )
    return lines
