"""Preparation: the same bytes every time, nothing half-made, every dropped question named, both sides apart."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from open_r1.common.atomic_files import DiskError, read_manifest, sha256_file
from open_r1.common.errors import UserError
from open_r1.data.arrow_sets import FEATURES
from open_r1.data.loading import load_rows
from open_r1.data.omnimedvqa.prepare import Preparation, prepare
from open_r1.data.omnimedvqa.source import Question, read_release
from open_r1.data.omnimedvqa.splits import draw_per_image, draw_per_question
from open_r1.data.omnimedvqa.summary import report_lines
from open_r1.data.preparation import encoded_images
from open_r1.data.preparation.encoded_images import Encoding
from open_r1.data.rows import leak
from open_r1.vocabulary.labels import Modality, Task

SMALL = Encoding(size=32)
MODALITIES = {
    Modality.CT: "CT(Computed Tomography)",
    Modality.OCT: "OCT (Optical Coherence Tomography",
}
ASKED = {
    Task.MODALITY: ("Which method is it?", ["CT", "OCT", "X-Ray"]),
    Task.DIAGNOSIS: ("What is wrong?", ["edema, diffuse", "nothing (healthy)"]),
}


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def entries(modality: Modality, images: int) -> list[dict]:
    """Two questions on each image."""
    rows = []
    for number in range(images):
        for task, (question, options) in ASKED.items():
            answer = modality.value if task is Task.MODALITY else options[number % 2]
            row = {
                "dataset": f"{modality} set",
                "question_type": task.value,
                "modality_type": MODALITIES[modality],
                "question": question,
                "gt_answer": answer,
                "image_path": f"Images/{modality} set/{number:03d} (1).png",
            }
            rows.append(row | {f"option_{letter}": text for letter, text in zip("ABC", options, strict=False)})
    return rows


def make_release(folder: Path, images: int = 20) -> Path:
    for place, modality in enumerate(MODALITIES):
        rows = entries(modality, images)
        for number, path in enumerate(sorted({row["image_path"] for row in rows})):
            draw(folder / path, 1000 * place + number)
        file = folder / "QA_information" / "Open-access" / f"{modality} set.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(rows))
    return folder


@pytest.fixture(scope="session")
def shared_release(tmp_path_factory) -> Path:
    return make_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def release(shared_release, tmp_path) -> Path:
    """A release that the test may change."""
    return Path(shutil.copytree(shared_release, tmp_path / "release"))


@pytest.fixture
def build(release, tmp_path):
    def run(output: str = "out", **options):
        source = {} if "splits_dir" in options else {"release": release}
        return prepare(Preparation(**{"output_dir": tmp_path / output, "encoding": SMALL, **source, **options}))

    return run


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with its hash."""
    return {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def ids(folder: Path, split) -> list[str]:
    return datasets.load_from_disk(str(folder))[split]["id"][:]  # type: ignore[index, return-value]


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


# ---------------------------------------------------------------------------------------------- draws


def test_a_random_draw_takes_a_fifth_of_every_cell():
    cells = [(0, 0)] * 100 + [(0, 1)] * 7 + [(1, 0)] * 2 + [(1, 1)]
    sides = draw_per_question(cells, list(range(1, 111)), seed=0)
    # 0.2 * 100 = 20; 0.2 * 7 = 1.4; 0.2 * 2 = 0.4, but a cell of two has a test question; one question trains
    assert Counter(cell for cell, side in zip(cells, sides, strict=True) if side) == {(0, 0): 20, (0, 1): 1, (1, 0): 1}


def test_a_draw_per_image_keeps_images_whole_and_cells_near_a_fifth():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 400, 2000).tolist()
    cells = [(image % 3, question % 2) for question, image in enumerate(images)]
    sides = draw_per_image(cells, images, seed=1)
    assert leak(*([p for p, side in zip(images, sides, strict=True) if side == value] for value in (0, 1))).shared == 0
    for cell, count in Counter(cells).items():
        share = sum(side for value, side in zip(cells, sides, strict=True) if value == cell) / count
        assert 0.12 < share < 0.28, cell  # observed 0.17 to 0.23
    assert sides != draw_per_image(cells, images, seed=2)


def test_a_draw_per_image_of_few_has_both_sides():
    sides = draw_per_image([(0, 0), (0, 1), (0, 1)], [11, 12, 12], seed=0)
    assert sorted(sides) in ([0, 0, 1], [0, 1, 1])
    assert list(draw_per_image([(0, 0), (0, 1)], [11, 11], seed=0)) == [0, 0]


def test_copies_of_an_image_under_other_names_are_one_image(build, tmp_path, release):
    for number in range(0, 20, 2):  # every second CT image is the one before it
        shutil.copy(
            release / f"Images/CT set/{number:03d} (1).png", release / f"Images/CT set/{number + 1:03d} (1).png"
        )
    (apart,) = build("apart", split="image_disjoint", only=(Modality.CT,)).sets
    assert apart.report["leak"]["by content"]["shared"] == apart.report["leak"]["by path"]["shared"] == 0
    assert apart.report["questions"]["test"] in (4, 8, 12)
    (mixed,) = build("mixed", split="random", only=(Modality.CT,)).sets
    by_path, by_content = mixed.report["leak"]["by path"], mixed.report["leak"]["by content"]
    assert by_path["shared"] < by_content["shared"] <= by_content["questions"] == 8


# ---------------------------------------------------------------------------------------------- split files


@pytest.fixture
def splits(release, tmp_path) -> Path:
    """Med-R1's files: the families drawn apart, one question without a modality."""
    rows = [row for row in read_release(release) if isinstance(row, Question)]
    folder = tmp_path / "splits"

    def write(family: str, name: str, side: str, members: list[Question]) -> None:
        path = folder / family / side / f"{name}_{side}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        published = [{"image": row.image, "problem": row.problem, "solution": row.solution} for row in members]
        path.write_text(json.dumps(published))

    for modality, name in MODALITIES.items():
        label_rows = [row for row in rows if row.modality is modality][::-1]
        if modality is Modality.CT:
            write("modality", "unknown", "train", [label_rows.pop()])
        write("modality", name, "test", label_rows[:5])
        write("modality", name, "train", label_rows[5:])
    for task in ASKED:
        label_rows = [row for row in rows if row.task is task]
        write("question_type", task.value, "train", label_rows[:30])
        write("question_type", task.value, "test", label_rows[30:])
    return folder


def test_published_splits_keep_sides_and_order_and_get_their_labels(build, splits, release, tmp_path):
    outcome = build(splits_dir=splits, image_root=release)
    assert [data_set.report["questions"] for data_set in outcome.sets] == [
        {"train": 34, "test": 5},
        {"train": 35, "test": 5},
        {"train": 30, "test": 10},
        {"train": 30, "test": 10},
    ]
    wanted = json.loads((splits / "modality/train/OCT (Optical Coherence Tomography_train.json").read_text())
    rows, _ = load_rows(tmp_path / "out/OCT_32", "train")
    assert [row["problem"] for row in rows.to_list()] == [row["problem"] for row in wanted]
    assert [row["images"][0]["path"] for row in rows.to_list()] == [row["image"] for row in wanted]
    assert Counter(row["task"] for row in rows.to_list()) == {"Modality Recognition": 18, "Disease Diagnosis": 17}
    tasks, _ = load_rows(tmp_path / "out/Modality_Recognition_32", "train")
    assert Counter(row["modality"] for row in tasks.to_list()) == {"CT": 19, "OCT": 10, None: 1}
    assert outcome.unlabelled == {"modality": 1, "task": 0}
    assert "1 questions have no modality: they are in no modality set" in list(report_lines(outcome))


def test_split_files_can_be_drawn_anew(build, splits, release, tmp_path):
    outcome = build(splits_dir=splits, image_root=release, split="image_disjoint", by=("task",))
    assert [sum(data_set.report["questions"].values()) for data_set in outcome.sets] == [40, 40]
    assert all(data_set.report["leak"]["by path"]["shared"] == 0 for data_set in outcome.sets)


def test_questions_that_are_asked_twice_or_answered_twice_are_dropped(build, splits, release):
    path = splits / "modality/train/OCT (Optical Coherence Tomography_train.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([*rows, rows[0]]))
    second = splits / "question_type/test/Disease Diagnosis_test.json"
    rows = json.loads(second.read_text())
    turned = {"A": "<answer> B </answer>", "B": "<answer> A </answer>"}
    rows[0]["solution"] = turned[rows[0]["solution"][9]]
    second.write_text(json.dumps(rows))
    outcome = build(splits_dir=splits, image_root=release)
    assert Counter(row["reason"] for row in outcome.dropped) == {"repeated-question": 1, "two-solutions": 1}


def test_a_missing_side_is_refused_before_any_work_unless_allowed(build, splits, release, tmp_path):
    shutil.rmtree(splits / "modality" / "train")
    with pytest.raises(UserError, match=r"CT_32 has no train question; OCT_32 has no train.*--allow_missing_side"):
        build(splits_dir=splits, image_root=release)
    assert not (tmp_path / "out").exists()
    build(splits_dir=splits, image_root=release, by=("modality",), allow_missing_side=True)
    saved = datasets.load_from_disk(str(tmp_path / "out/CT_32"))
    assert isinstance(saved, datasets.DatasetDict)
    assert {split: len(subset) for split, subset in saved.items()} == {"test": 5}
    with pytest.raises(UserError, match="has no train split, only test"):
        load_rows(tmp_path / "out/CT_32", "train")


# ---------------------------------------------------------------------------------------------- again


def test_a_second_run_does_nothing_and_says_so(build, tmp_path, monkeypatch):
    build()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    monkeypatch.setattr(Encoding, "encode", None)  # it would fail
    outcome = build()
    assert [data_set.built for data_set in outcome.sets] == [False] * 4
    assert "complete already, nothing was done" in next(iter(report_lines(outcome)))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_other_settings_or_inputs_are_refused_by_name(build, tmp_path, release):
    build()
    before = tree(tmp_path / "out")
    with pytest.raises(UserError, match=r"CT_32 was made with other settings or inputs: seed \(was 42, is 7\); remove"):
        build(seed=7)
    with pytest.raises(UserError, match=r"split \(was random, is image_disjoint\), pictures"):
        build(split="image_disjoint")
    draw(release / "Images/CT set/000 (1).png", 99)
    (release / "Images/CT set/001 (1).png").unlink()
    with pytest.raises(UserError, match=r"inputs: pictures \("):
        build()
    shutil.rmtree(release / "QA_information/Open-access")
    make_release(release, images=19)
    with pytest.raises(UserError, match=r"inputs: question files \("):
        build()
    assert tree(tmp_path / "out") == before


def test_a_damaged_set_is_found(build, tmp_path):
    build(only=(Modality.CT,))
    next((tmp_path / "out/CT_32/train").glob("*.arrow")).unlink()
    with pytest.raises(UserError, match=r"CT_32 is damaged \(train/data-00000-of-00001.arrow\)"):
        build(only=(Modality.CT,))


def test_a_folder_that_holds_something_else_stays(build, tmp_path):
    (tmp_path / "out/CT_32").mkdir(parents=True)
    (tmp_path / "out/CT_32/notes.txt").write_text("mine")
    with pytest.raises(UserError, match="CT_32 is not empty and was not made"):
        build()
    assert tree(tmp_path / "out").keys() == {"CT_32/notes.txt"}


def test_an_interrupted_run_goes_on_where_it_stopped(build, tmp_path, monkeypatch):
    build("whole")
    encode, encoded = Encoding.encode, []

    def interrupt_at(limit):
        def counted(self, data, name):
            if len(encoded) == limit:
                raise KeyboardInterrupt
            encoded.append(name)
            return encode(self, data, name)

        return counted

    monkeypatch.setattr(Encoding, "encode", interrupt_at(21))
    with pytest.raises(KeyboardInterrupt):
        build()
    assert [name for name in os.listdir(tmp_path / "out") if not name.startswith(".")] == []
    monkeypatch.setattr(Encoding, "encode", interrupt_at(-1))
    build()
    assert len(encoded) == 40 + 5  # 21 done; of these the 16 in finished chunks of 8 were kept
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_that_loads_and_no_process(release, tmp_path, repository):
    for number in range(20, 120):
        draw(release / f"Images/CT set/{number:03d} (1).png", number)
    (release / "QA_information/Open-access/CT set.json").write_text(json.dumps(entries(Modality.CT, 120)))
    command = [sys.executable, str(repository / "scripts/prepare_omnimedvqa.py"), "--release", str(release)]
    options = ["--only", "CT", "--num_workers", "2", "--size", "512", "--output_dir"]
    process = subprocess.Popen([*command, *options, str(tmp_path / "out")], stderr=subprocess.PIPE)
    index = tmp_path / "out/.partial/pictures/index.jsonl"
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and not (index.exists() and index.read_bytes().count(b"\n") > 1):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    # The workers hold the same standard error: it ends when the last of them is gone.
    process.communicate(timeout=600)
    assert not (tmp_path / "out/CT_512").exists()
    with index.open("a") as file:
        file.write('["Images/CT set/119 (1).png", 77')  # a torn line
    remaining = index.read_bytes().count(b"\n") - 1
    assert 0 < remaining < 120
    finished = subprocess.run([*command, *options, str(tmp_path / "out")], capture_output=True, text=True)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "192 train, 48 test questions on 120 images, 0 dropped" in finished.stdout
    assert os.listdir(tmp_path / "out") == ["CT_512"]


def test_two_runs_do_not_write_to_one_folder(build, tmp_path):
    from open_r1.common.locks import claimed

    with claimed(tmp_path / "out"), pytest.raises(UserError, match=r"another process .* is writing"):
        build()


# ---------------------------------------------------------------------------------------------- bad input


def test_every_dropped_question_is_listed_with_its_reason(build, release, tmp_path):
    folder = release / "Images/CT set"
    (folder / "000 (1).png").unlink()
    (folder / "001 (1).png").write_bytes(b"")
    (folder / "002 (1).png").write_text("no image")
    full = (folder / "003 (1).png").read_bytes()
    (folder / "003 (1).png").write_bytes(full[: len(full) // 2])
    (folder / "004 (1).png").unlink()
    (folder / "004 (1).png").symlink_to("/etc/passwd")
    rows = entries(Modality.CT, 20)
    rows[10]["gt_answer"] = "PET"
    rows[11]["image_path"] = "https://example.org/x.png"
    del rows[12]["question"]
    (release / "QA_information/Open-access/CT set.json").write_text(json.dumps([*rows, "what?"]))
    outcome = build()
    expected = {
        "missing": 2,
        "empty": 2,
        "not-an-image": 2,
        "unreadable": 2,
        "outside-root": 2,
        "solution-not-offered": 1,
        "url": 1,
        "missing-key": 1,
        "not-an-object": 1,
    }
    assert Counter(row["reason"] for row in outcome.dropped) == expected
    ct = next(data_set for data_set in outcome.sets if data_set.folder.name == "CT_32")
    assert sum(ct.report["questions"].values()) == 40 - 13
    stored = json.loads((ct.folder / "report.json").read_text())
    assert stored == ct.report
    assert len(stored["dropped"]) == 13  # the one without any label is nobody's
    lines = "\n".join(report_lines(outcome))
    assert "14 questions dropped: 2 " in lines
    assert "Open-access/CT set.json entry 10 - the answer 'PET' is not one of" in lines
    assert "and 4 more" in lines
    assert prepare(Preparation(tmp_path / "out", release=release, encoding=SMALL)).dropped == outcome.dropped


def test_a_side_whose_images_all_fail_is_an_error(build, release, tmp_path):
    for path in (release / "Images/CT set").iterdir():
        path.write_text("no image")
    with pytest.raises(UserError, match=r"CT_32: none of the 32 train questions has an image that can be used"):
        build()
    assert [name for name in os.listdir(tmp_path / "out") if not name.startswith(".")] == []


def test_a_wrong_image_root_is_told_before_any_work(build, release, tmp_path, splits):
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(UserError, match=r"none of the 20 images of CT is below .*elsewhere, for example 'Images/CT"):
        build(splits_dir=splits, image_root=tmp_path / "elsewhere")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("limit", [20_000, 60_000])  # the pack holds 20 images of 3 kB, a set's file more
def test_a_full_disk_is_one_error_and_leaves_nothing(build, tmp_path, limit, file_size_limit):
    with pytest.raises(DiskError, match=r"cannot write .*out: the file became larger than"), file_size_limit(limit):
        build(only=(Modality.CT,))
    assert not (tmp_path / "out").exists()
    build(only=(Modality.CT,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"release": None}, "either --release or --splits_dir"),
        ({"splits_dir": "."}, "either --release or --splits_dir"),
        ({"release": None, "splits_dir": "."}, "needs --image_root"),
        ({"release": "nowhere"}, "nowhere is not a readable folder"),
        ({"split": "published"}, "no published split"),
        ({"num_workers": 0}, "--num_workers 0"),
        ({"only": (Task.MODALITY,), "by": ("modality",)}, "which --by leaves out"),
        ({"only": (Modality.FUNDUS,)}, "no question for --only Fundus; available: CT, OCT"),
    ],
)
def test_settings_that_make_no_sense_are_refused(release, tmp_path, options, message):
    options = {
        key: Path(value) if isinstance(value, str) and key != "split" else value for key, value in options.items()
    }
    with pytest.raises(UserError, match=message):
        prepare(Preparation(**{"output_dir": tmp_path / "out", "release": release, **options}))
    assert not (tmp_path / "out").exists()


def test_sizes_and_formats_that_do_not_exist_are_refused():
    with pytest.raises(UserError, match="--format GIF"):
        Encoding(384, "GIF")
    with pytest.raises(UserError, match="--size 0"):
        Encoding(0)


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
    assert peaks[400] - peaks[100] < 15  # MB; observed 3.5


def test_a_pack_takes_up_only_what_still_holds(tmp_path):
    for number in range(3):
        draw(tmp_path / f"{number}.png", number)
    references = [f"{number}.png" for number in range(3)]

    def fill(encoding: Encoding) -> tuple[encoded_images.Pack, int]:
        pack = encoded_images.Pack(tmp_path / "pack", tmp_path, references, encoding)
        ready = sum(index in pack for index in range(3))
        pack.start((encoded_images.Job(index, name, True) for index, name in enumerate(references)), 1)
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
