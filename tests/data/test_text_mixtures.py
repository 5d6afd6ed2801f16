"""Training sets of text questions: the draw, what is held out, one schema, folders that stay."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
from text_sets import medqa_row, write_lines, xpert_row

from open_r1.common.atomic_files import read_manifest
from open_r1.common.errors import UserError
from open_r1.data.loading import load_rows
from open_r1.data.row_images import row_images
from open_r1.data.text.prepare import COLUMNS, Mixture, draw, mix, report_lines
from open_r1.data.text.questions import TextQuestion
from open_r1.grading.problems import options_in


def questions(counts: dict[str, int]) -> list[TextQuestion]:
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    return [TextQuestion(f"Q{n}?", ("x", "y"), "A", "S", kind) for n, kind in enumerate(kinds)]


def test_the_draw_is_exact_stratified_and_without_replacement():
    drawn = draw(questions({"Reasoning": 186, "Understanding": 58}), 49, seed=42)
    # 49 of 244: 49 * 186 / 244 = 37.35 and 49 * 58 / 244 = 11.65; the larger remainder is rounded up: 37 and 12
    assert Counter(q.question_type for q in drawn) == {"Reasoning": 37, "Understanding": 12}
    assert len({q.id for q in drawn}) == 49


def test_the_draw_follows_the_seed_and_not_the_order_of_the_file():
    pool = questions({"a": 30, "b": 10})
    shuffled = random.Random(0).sample(pool, len(pool))
    ids = [{q.id for q in draw(rows, 20, seed)} for rows in (pool, shuffled) for seed in (1, 2)]
    assert ids[0] == ids[2]
    assert ids[1] == ids[3]
    assert ids[0] != ids[1]


@pytest.fixture
def roots(tmp_path: Path) -> dict[str, Path]:
    """MedQA with 700 questions, MedXpertQA in its published size: 2,450 in two types."""
    write_lines(tmp_path / "medqa" / "train.jsonl", [medqa_row(n) for n in range(700)])
    kinds = ["Reasoning"] * 1861 + ["Understanding"] * 589
    write_lines(tmp_path / "xpert" / "Text" / "test.jsonl", [xpert_row(n, kind) for n, kind in enumerate(kinds)])
    return {"medqa_usmle_root": tmp_path / "medqa", "medxpertqa_root": tmp_path / "xpert"}


@pytest.mark.slow
def test_data_set_2_is_600_and_490_with_1960_held_out(roots, tmp_path):
    manifest = mix(Mixture(**roots, dataset=2), tmp_path / "out")
    train, test = manifest["rows"]["train"], manifest["rows"]["test"]
    assert (train["n"], train["source"]) == (1090, {"MedQA": 600, "MedXpertQA": 490})
    assert (test["n"], test["source"]) == (1960, {"MedXpertQA": 1960})
    # 490 * 1861 / 2450 = 372.2 and 490 * 589 / 2450 = 117.8
    assert (train["question_type"]["Reasoning"], train["question_type"]["Understanding"]) == (372, 118)
    rows = {split: load_rows(tmp_path / "out", split) for split in ("train", "test")}
    assert [(len(usable), dropped) for usable, dropped in rows.values()] == [(1090, []), (1960, [])]
    assert not set(rows["train"][0]["id"]) & set(rows["test"][0]["id"])


@pytest.mark.slow
def test_the_other_mixtures_hold_out_the_same_questions(roots, tmp_path):
    mixtures = {
        1: ({"MedQA": 650}, 650),
        3: ({"MedXpertQA": 490}, None),
        None: ({"MedQA": 650, "MedXpertQA": 490}, 650),
    }
    held_out = []
    for dataset, (sources, count) in mixtures.items():
        manifest = mix(Mixture(**roots, dataset=dataset, usmle_nums=count), tmp_path / f"out{dataset}")
        assert manifest["rows"]["train"]["source"] == sources
        held_out.append((tmp_path / f"out{dataset}" / "test.jsonl").read_bytes())
    assert len(set(held_out)) == 1


def test_more_than_there_is_is_refused_with_the_numbers_and_the_remedy(roots, tmp_path):
    with pytest.raises(UserError, match=r"700 usable .* fewer than the 1090 .* --usmle_nums 700"):
        mix(Mixture(**roots), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_same_command_gives_the_same_bytes_and_another_seed_others(roots, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        mix(Mixture(**roots, dataset=2, seed=seed), tmp_path / name)
    hashes = {name: (read_manifest(tmp_path / name) or {})["outputs"] for name in "abc"}
    assert hashes["a"] == hashes["b"]
    assert hashes["a"]["train.jsonl"] != hashes["c"]["train.jsonl"]


@pytest.mark.slow
def test_every_row_has_one_schema_in_lines_parquet_and_arrow(roots, tmp_path):
    mix(Mixture(**roots, dataset=2), tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert {tuple(row) for row in lines} == {COLUMNS}
    kinds = {tuple(type(value) for value in row.values()) for row in lines}
    assert {kind[4] for kind in kinds} == {list}
    assert all(set(kind[:4] + kind[5:7]) == {str} for kind in kinds)
    assert pq.read_table(tmp_path / "out" / "train.parquet").to_pylist() == lines
    usable, _ = load_rows(tmp_path / "out", "train")
    assert usable["problem"] == [row["problem"] for row in lines]
    assert usable[0]["images"] == []
    assert row_images(usable[0]) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"dataset": 4}, "--dataset 4"),
        ({"dataset": 3, "usmle_nums": 5}, "leave the flag out"),
        ({"usmle_nums": 0}, "--usmle_nums 0"),
        ({"xpert_test_size": 1.0}, "between 0 and 1"),
        ({"dataset": 2, "medxpertqa_root": None}, "--medxpertqa_root is missing"),
        ({"medqa_usmle_root": None}, "--medqa_usmle_root is missing"),
        ({"medqa_usmle_root": Path("nowhere"), "usmle_nums": 5}, "is no folder"),
        ({"medqa_usmle_root": Path("tests"), "usmle_nums": 5}, "has another layout"),
    ],
)
def test_flags_that_cannot_be_are_one_line(flags, message, tmp_path):
    settings: dict[str, Any] = {"medqa_usmle_root": tmp_path, "medxpertqa_root": tmp_path} | flags
    with pytest.raises(UserError, match=message) as caught:
        mix(Mixture(**settings), tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_finished_or_foreign_folder_is_never_overwritten(roots, tmp_path):
    mix(Mixture(**roots, dataset=2), tmp_path / "out")
    with pytest.raises(UserError, match="complete already"):
        mix(Mixture(**roots, dataset=2), tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and was not made"):
        mix(Mixture(**roots, dataset=2), tmp_path / "mine")


def test_a_image_that_was_lost_is_no_text_question(tmp_path):
    rows = {"image": [None, None], "problem": ["Q? A)x, B)y"] * 2, "solution": ["A", "B"]}
    features = datasets.Features(
        {"image": datasets.Image(), **{k: datasets.Value("string") for k in ("problem", "solution")}}
    )
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "CT_384"))
    with pytest.raises(UserError, match="no-image"):
        load_rows(tmp_path / "CT_384")


def test_real_medqa_and_medxpertqa_become_a_training_set(real_dir, tmp_path):
    roots = {"medqa_usmle_root": real_dir / "medqa_usmle", "medxpertqa_root": real_dir / "medxpertqa"}
    manifest = mix(Mixture(**roots, usmle_nums=150), tmp_path / "out")
    # 244 questions: ceil(0.8 * 244) = 196 are held out, 48 are trained on
    assert manifest["rows"]["train"]["source"] == {"MedQA": 150, "MedXpertQA": 48}
    assert manifest["rows"]["test"]["n"] == 196
    # two of the 198 real rows offer an option twice
    assert [row["reason"] for row in manifest["inputs"]["medqa"]["dropped"]] == ["repeated-option"] * 2
    assert "150" in "\n".join(report_lines(tmp_path / "out", manifest))
    usable, dropped = load_rows(tmp_path / "out", "train")
    assert (len(usable), dropped) == (198, [])
    assert {len(options_in(problem)) for problem in usable["problem"]} == {4, 5, 10}
