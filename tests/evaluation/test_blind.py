"""The blind floor, by hand and against the figures measured on the published split files."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from open_r1.common.errors import UserError
from open_r1.evaluation.scoring.blind_floor import blind_floor, measure, read_file, read_set
from open_r1_testbed.phantoms import make_phantoms, save_prepared


def row(options: str, letter: str) -> dict[str, str]:
    return {"problem": f"Which? {options}", "solution": f"<answer> {letter} </answer>"}


# right / offered: cat 2/2, dog 1/3, bird 0/1
TRAIN = [row("A)cat, B)dog", "A"), row("A)dog, B)cat", "B"), row("A)dog, B)bird", "A")]


def test_blind_floor_by_hand():
    assert blind_floor(TRAIN, [row("A)dog, B)cat", "B")]) == 1.0
    assert blind_floor(TRAIN, [row("A)dog, B)bird", "B")]) == 0.0
    assert blind_floor(TRAIN, [row("A)bird, B)fish", "A")]) == 0.5  # both 0, the unseen one as well
    assert blind_floor(TRAIN, [row("A)bird, B)fish, C)frog, D)dog", "C")]) == 0.0
    three = [row("A)dog, B)cat", "B"), row("A)dog, B)bird", "B"), row("A)bird, B)fish", "A")]
    assert blind_floor(TRAIN, three) == 0.5  # (1 + 0 + 1/2) / 3


def test_case_is_told_apart_unless_folded():
    test = [row("A)Cat, B)dog", "A")]
    assert blind_floor(TRAIN, test) == 0.0  # "Cat" was never seen, dog has 1/3
    assert blind_floor(TRAIN, test, fold_case=True) == 1.0


def test_a_share_counts_not_a_number():
    # rare is right 1 of 1, common 2 of 3
    train = [row("A)common, B)x", "A"), row("A)common, B)x", "A"), row("A)common, B)rare", "B")]
    assert blind_floor(train, [row("A)common, B)rare", "B")]) == 1.0


def test_floor_without_training_rows_is_chance():
    assert blind_floor([], [row("A)cat, B)dog", "A"), row("A)a, B)b, C)c, D)d", "D")]) == pytest.approx(0.375)


def test_no_test_rows_is_an_error():
    with pytest.raises(UserError, match="no test questions"):
        blind_floor(TRAIN, [])


# what FACTS.md measured: blind floor exact and case-folded, share of test questions whose image is in training
PUBLISHED = {
    "modality/Fundus Photography": (95.77, 94.85, 9.7),
    "modality/OCT (Optical Coherence Tomography": (100.0, 100.0, 29.8),
}
UNPUBLISHED = ["question_type/Lesion Grading", "question_type/Other Biological Attributes"]


def split_files(real_dir: Path, name: str) -> list[Path]:
    family, _, label = name.partition("/")
    files = [real_dir / "omnimedvqa_splits" / family / side / f"{label}_{side}.json" for side in ("train", "test")]
    if not all(file.is_file() for file in files):
        pytest.skip(f"the published split files of {label} are not here on both sides")
    return files


@pytest.mark.slow
@pytest.mark.parametrize(("name", "expected"), PUBLISHED.items())
def test_floors_of_the_published_split_files_are_the_ones_measured(real_dir, repository, name, expected):
    train, test = split_files(real_dir, name)
    process = subprocess.run(
        [sys.executable, "eval/blind.py", "--train", str(train), "--test", str(test)],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
        timeout=1800,
    )
    figures = [float(number) for number in re.findall(r"([\d.]+) %", process.stdout)]
    assert (figures[0], figures[1], figures[3]) == pytest.approx(expected, abs=0.1)


def plain_floor(train: list[dict], test: list[dict], fold: Callable[[str], str]) -> float:
    """FACTS' rule in its plainest form; the files' options are split at ", B)" and so on, without `options_in`."""

    def read(row: dict) -> tuple[list[str], str]:
        texts = [fold(text) for text in re.split(r"(?:^|[,\s])\s*[A-F]\)", row["problem"])[1:]]
        return texts, texts["ABCDEF".index(row["solution"].split()[1])]

    offered, gold = Counter(), Counter()
    for texts, right in map(read, train):
        offered.update(texts)
        gold[right] += 1
    points = 0.0
    for texts, right in map(read, test):
        shares = [gold[text] / max(1, offered[text]) for text in texts]
        best = [text for text, share in zip(texts, shares, strict=True) if share == max(shares)]
        points += best.count(right) / len(best)
    return points / len(test)


@pytest.mark.slow
@pytest.mark.parametrize("name", UNPUBLISHED)
def test_floors_of_task_files_equal_a_plain_count_that_shares_no_code(real_dir, name):
    train, test = split_files(real_dir, name)
    floors = measure(read_file(train), read_file(test))
    rows = json.loads(train.read_text()), json.loads(test.read_text())
    plain = plain_floor(*rows, str), plain_floor(*rows, str.casefold)
    print(f"{name}: {floors}, plain {plain}")
    assert (floors.exact, floors.folded) == pytest.approx(plain, abs=0.001)
    assert floors.chance == pytest.approx(0.25, abs=0.01)


# ------------------------------------------------------------------------------------------------ the command


@pytest.mark.slow
def test_list_and_prepared_folder_give_the_same_floors(tmp_path):
    make_phantoms(tmp_path / "phantoms", train=6, test=2)
    lists = [read_file(tmp_path / "phantoms" / f"{side}.json") for side in ("train", "test")]
    prepared = save_prepared(tmp_path / "phantoms", tmp_path / "prepared")
    folder = [read_set(prepared, side) for side in ("train", "test")]
    assert measure(*folder) == measure(*lists)
    assert measure(*folder).image_in_training == 0
    assert measure(folder[0], folder[0]).image_in_training == len(folder[0].rows)


@pytest.mark.slow
def test_command_takes_a_prepared_folder_and_refuses_half_a_question(tmp_path, load_script, capsys, monkeypatch):
    make_phantoms(tmp_path / "phantoms", train=2, test=1)
    save_prepared(tmp_path / "phantoms", tmp_path / "prepared")
    main = load_script("eval/blind.py").main
    monkeypatch.setattr("sys.argv", ["blind.py", "--data", str(tmp_path / "prepared")])
    assert main() == 0
    assert re.search(r"uniform guessing +25\.00 %", capsys.readouterr().out)
    monkeypatch.setattr("sys.argv", ["blind.py", "--test", "test.json"])
    with pytest.raises(UserError, match="either --train and --test"):
        main()


def test_rows_that_cannot_be_used_are_counted_and_images_not_opened(tmp_path):
    good = {"image": "nowhere/1.png", **row("A)cat, B)dog", "A")}
    (tmp_path / "list.json").write_text(json.dumps([good, {"image": "x.png"}]))
    side = read_file(tmp_path / "list.json")
    assert (len(side.rows), side.dropped, list(side.images)) == (1, 1, [("nowhere/1.png",)])
    (tmp_path / "bad.json").write_text("[{}]")
    with pytest.raises(UserError, match="no row that can be used"):
        read_file(tmp_path / "bad.json")
