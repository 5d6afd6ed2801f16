"""Preparation: the same bytes every time, nothing half-made, every dropped question named, both sides apart."""

import importlib.util
import os
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from small_release import SMALL, draw, ids, tree

from open_r1.common.atomic_files import read_manifest
from open_r1.common.errors import UserError
from open_r1.data.arrow_sets import FEATURES
from open_r1.data.key_table import References
from open_r1.data.loading import load_rows
from open_r1.data.omnimedvqa.prepare import Preparation, prepare
from open_r1.data.omnimedvqa.source import Question, read_release
from open_r1.data.preparation import encoded_images
from open_r1.data.preparation.encoded_images import Encoding
from open_r1.vocabulary.labels import Modality

# ---------------------------------------------------------------------------------------------- what comes out


def test_a_release_becomes_sets_that_load(build, tmp_path, release):
    outcome = build()
    names = ["CT_32", "OCT_32", "Disease_Diagnosis_32", "Modality_Recognition_32"]
    assert [data_set.folder.name for data_set in outcome.sets] == names
    assert sorted(os.listdir(tmp_path / "out")) == sorted(names)  # and nothing left over
    saved = datasets.load_from_disk(str(tmp_path / "out" / "CT_32"))
    assert isinstance(saved, datasets.DatasetDict)
    assert {split: len(subset) for split, subset in saved.items()} == {"train": 32, "test": 8}
    assert saved["train"].features == FEATURES
    row = saved["train"][0]
    assert (row["image"].mode, row["image"].size) == ("RGB", (32, 32))
    assert (row["source"], row["modality"]) == ("CT set", "CT")
    read = {(r.image, r.problem, r.solution) for r in read_release(release) if isinstance(r, Question)}
    for split in ("train", "test"):
        rows, dropped = load_rows(tmp_path / "out" / "OCT_32", split)
        assert dropped == []
        assert {(r["images"][0]["path"], r["problem"], r["solution"]) for r in rows.to_list()} <= read


def test_pixels_are_the_resized_ones_in_png_and_near_them_in_jpeg(build, tmp_path, release):
    build(only=(Modality.CT,))
    build("jpeg", only=(Modality.CT,), encoding=Encoding(32, "JPEG"))
    (row, *_), (lossy, *_) = (load_rows(tmp_path / name / "CT_32", "test")[0].to_list() for name in ("out", "jpeg"))
    from open_r1.data.row_images import row_images

    with Image.open(release / row["images"][0]["path"]) as source:
        expected = np.asarray(source.resize((32, 32), Image.Resampling.BICUBIC)).astype(int)
    assert np.array_equal(np.asarray(row_images(row)[0]), expected)
    assert lossy["images"][0]["bytes"][:2] == b"\xff\xd8"
    assert abs(np.asarray(row_images(lossy)[0]) - expected).mean() < 4  # noise at quality 95; observed 1.7


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_number_of_processes(build, tmp_path):
    for workers in (1, 3):
        build(f"out{workers}", num_workers=workers, split="image_disjoint")
    one_worker, three_workers = tree(tmp_path / "out1"), tree(tmp_path / "out3")
    assert one_worker == three_workers
    assert sum(name.endswith(".arrow") for name in one_worker) == 8


def test_another_seed_gives_another_split(build, tmp_path):
    build("a", only=(Modality.CT,))
    build("b", only=(Modality.CT,), seed=7)
    assert set(ids(tmp_path / "a/CT_32", "test")) != set(ids(tmp_path / "b/CT_32", "test"))


@pytest.mark.slow
def test_a_part_built_alone_is_the_part_of_the_whole(build, tmp_path):
    for split in ("random", "image_disjoint"):
        build(split, split=split)
        build(f"{split}_ct", split=split, only=(Modality.CT,))
        assert tree(tmp_path / split / "CT_32") == tree(tmp_path / f"{split}_ct" / "CT_32")


def test_a_drawn_split_is_the_same_for_modalities_and_tasks(build, tmp_path):
    build()
    sides = {
        (kind, split): {row_id for name in names for row_id in ids(tmp_path / "out" / name, split)}
        for kind, names in {
            "modality": ("CT_32", "OCT_32"),
            "task": ("Disease_Diagnosis_32", "Modality_Recognition_32"),
        }.items()
        for split in ("train", "test")
    }
    assert sides["modality", "test"] == sides["task", "test"]
    assert not sides["modality", "test"] & sides["task", "train"]


# ---------------------------------------------------------------------------------------------- the command


def load_script(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem + "_script", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def command(repository, monkeypatch):
    script = load_script(repository / "scripts/prepare_omnimedvqa.py")

    def run(*arguments) -> int:
        monkeypatch.setattr(sys, "argv", ["prepare_omnimedvqa.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            script.run_command(script.main)
        assert isinstance(ended.value.code, int)
        return ended.value.code

    return run


def test_the_command_builds_reports_and_is_strict_on_demand(command, release, tmp_path, capsys):
    arguments = ("--release", release, "--output_dir", tmp_path / "out", "--size", 32, "--num_workers", 1)
    assert command(*arguments, "--only", "CT", "Disease Diagnosis", "--strict") == 0
    assert "CT_32: 32 train, 8 test questions on 20 images, 0 dropped" in capsys.readouterr().out
    assert sorted(os.listdir(tmp_path / "out")) == ["CT_32", "Disease_Diagnosis_32"]
    (release / "Images/OCT set/000 (1).png").write_text("x")
    assert command(*arguments, "--only", "OCT") == 0
    assert command(*arguments, "--only", "OCT", "--strict") == 1  # complete already, and still not without loss
    assert "2 questions dropped: 2 not-an-image" in capsys.readouterr().out


def test_errors_of_the_command_are_one_line(command, release, tmp_path, capsys):
    for arguments, message in {
        ("--release", tmp_path / "no"): "no is not a readable folder",
        ("--release", release, "--only", "PET"): "'PET' is no modality or task",
        ("--release", release, "--only", "MR"): "'MR' is ambiguous",
        ("--release", release, "--by", "colour"): "--by colour is not valid",
    }.items():
        assert command(*arguments, "--output_dir", tmp_path / "out") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert message in line
    assert command("--release", release, "--frobnicate") == 2


def test_the_default_output_is_the_folder_of_the_published_command(repository):
    script = load_script(repository / "scripts/prepare_omnimedvqa.py")
    args = script.parser().parse_args([])
    assert (args.output_dir, args.size, args.format) == (Path("data/VQA"), 384, "PNG")
    assert Preparation(args.output_dir, release=repository).folder(Modality.CT) == Path("data/VQA/CT_384")


# ---------------------------------------------------------------------------------------------- real and many


@pytest.mark.slow
def test_the_real_release_prepares_out_of_the_box(real_dir, tmp_path):
    outcome = prepare(Preparation(tmp_path, release=real_dir / "omnimedvqa", encoding=Encoding(64), by=("modality",)))
    assert sum(sum(data_set.report["questions"].values()) for data_set in outcome.sets) == 432
    assert [data_set.folder.name for data_set in outcome.sets] == [
        "CT_64",
        "MRI_64",
        "X-Ray_64",
        "US_64",
        "Microscopy_64",
    ]
    assert outcome.dropped == []
    for data_set in outcome.sets:
        assert read_manifest(data_set.folder) is not None


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(repository, tmp_path):
    benchmark = load_script(repository / "benchmarks/prepare.py")
    peaks = {}
    for count in (100, 400):
        release = benchmark.make_release(tmp_path / f"{count}", count, 40, ((200, 200),))
        peaks[count] = benchmark.peak_memory(release, tmp_path / f"out{count}", 1)[0]
    stored = sum(path.stat().st_size for path in (tmp_path / "out400").rglob("*.arrow"))
    assert stored > 40 * 2**20  # what a preparation that gathers its images would hold
    assert peaks[400] - peaks[100] < 15  # MB; observed 8


def test_a_pack_takes_up_only_what_still_holds(tmp_path):
    for number in range(3):
        draw(tmp_path / f"{number}.png", number)
    names, references = [f"{number}.png" for number in range(3)], References(tmp_path / "references.txt")
    for name in names:
        references.add(name)

    def fill(encoding: Encoding) -> tuple[encoded_images.Pack, int]:
        pack = encoded_images.Pack(tmp_path / "pack", tmp_path, references, encoding)
        ready = sum(index in pack for index in range(3))
        pack.start((encoded_images.Job(index, name, True) for index, name in enumerate(names)), 1)
        assert sum(pack.finish()) == 3 - ready
        pack.close()
        return pack, ready

    assert fill(SMALL)[1] == 0
    assert fill(SMALL)[1] == 3
    draw(tmp_path / "1.png", 77)  # changed since
    assert fill(SMALL)[1] == 2
    assert fill(Encoding(40))[1] == 0
    pack, _ = fill(Encoding(40))
    segment = next((tmp_path / "pack").glob("*.pack"))
    segment.write_bytes(bytes(segment.stat().st_size))
    with pytest.raises(UserError, match="is damaged; remove that folder"):
        pack.read(0)
