"""Hashes of images: what they survive, what they tell apart, hash files, and what eval/overlap.py counts."""

import csv
import io
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image, ImageOps

from open_r1.common.errors import UserError
from open_r1.data.overlap.clusters import near_clusters, read_clusters, write_clusters
from open_r1.data.overlap.comparison import shared_images
from open_r1.data.overlap.exclusion import without_overlap
from open_r1.data.overlap.hash_files import is_hash_file, read_hashes, write_hashes
from open_r1.data.overlap.hashed_sets import HashedSplit, hash_rows, hash_set
from open_r1.data.overlap.image_hashes import HASH_BYTES, grey_of, hash_of, is_blank
from open_r1.data.overlap.near_images import HashTable
from open_r1.vocabulary.labels import Modality
from open_r1_testbed.phantom_images import draw
from open_r1_testbed.phantom_questions import sample_phantoms

Load = Callable[[str], Any]


def originals(count: int) -> list[Image.Image]:
    """Phantoms of two modalities."""
    kinds = (Modality.MRI, Modality.MICROSCOPY)
    return [draw(phantom) for kind in kinds for phantom in sample_phantoms(kind, count // 2, [5])]


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def split_of(name: str, images: list[bytes]) -> HashedSplit:
    return hash_rows([{"id": f"{name}{k}", "images": [{"bytes": data}]} for k, data in enumerate(images)], name)


def save(folder: Path, **splits: list[bytes]) -> Path:
    """A prepared set with a question about each image."""
    features = datasets.Features(
        {"image": datasets.Image(), "problem": datasets.Value("string"), "solution": datasets.Value("string")}
    )
    tables: Any = {
        name: datasets.Dataset.from_dict(
            {
                "image": [{"bytes": data, "path": None} for data in images],
                "problem": [f"What is in {name} {k}? A)liver, B)lung" for k in range(len(images))],
                "solution": ["<answer> A </answer>"] * len(images),
            },
            features=features,
        )
        for name, images in splits.items()
    }
    datasets.DatasetDict(tables).save_to_disk(str(folder))
    return folder


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as it is": lambda image: image,
    "smaller": lambda image: image.resize((150, 170)),
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "cropped": lambda image: image.crop((25, 8, 375, 380)),
    "darker": lambda image: image.point([round(0.85 * level) for level in range(256)] * 3),
    "gamma": lambda image: image.point([round(255 * (level / 255) ** 1.2) for level in range(256)] * 3),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_near_its_original_and_no_other(change: str) -> None:
    images = originals(16)
    table = HashTable.of(
        np.frombuffer(b"".join(hash_of(grey_of(i)).packed() for i in images), np.uint8).reshape(16, -1)
    )
    for place, image in enumerate(images):
        copy = Image.open(io.BytesIO(encoded(CHANGES[change](image), "JPEG", quality=70)))
        assert [other for other, _ in table.near(grey_of(copy))] == [place]


@pytest.mark.slow
def test_a_crop_is_near_whichever_side_it_is_on() -> None:
    images = originals(8)
    whole = split_of("whole", [encoded(image) for image in images])
    crops = split_of("crops", [encoded(image.crop((20, 10, 374, 372))) for image in images])
    for first, second in ((whole, crops), (crops, whole)):
        shared = shared_images(first, second)
        assert shared.pairs.keys() == {(k, k) for k in range(8)}
        assert (shared.same_bytes, shared.near) == (0, 8)


def test_equal_bytes_are_the_same_and_blank_images_only_so() -> None:
    black, grey = (encoded(Image.new("RGB", (64, 64), (level,) * 3)) for level in (0, 9))
    assert is_blank(grey_of(Image.open(io.BytesIO(black))))
    first, second = split_of("a", [black, b"no image"]), split_of("b", [grey, black])
    shared = shared_images(first, second)
    assert (shared.pairs, shared.near) == ({(0, 1): 1.0}, 0)
    assert (first.blank, first.unreadable, second.blank) == (1, 1, 2)
    assert "1 images cannot be read" in first.line()


@pytest.mark.slow
def test_a_hash_file_comes_back_and_holds_no_image(tmp_path: Path) -> None:
    images = [encoded(image) for image in originals(8)]
    split = split_of("set test", [*images, b"broken"])
    path = tmp_path / "set.hashes"
    write_hashes(path, [split])
    (read,) = read_hashes(path)
    assert is_hash_file(path)
    assert (read.name, read.keys, read.hashes, read.questions) == (
        split.name,
        split.keys,
        split.hashes,
        split.questions,
    )
    assert (read.unreadable, read.greys) == (1, None)
    assert path.stat().st_size < 400 + 8 * 3 * HASH_BYTES
    mirrored = split_of("mirrored", [encoded(ImageOps.mirror(image)) for image in originals(8)])
    assert shared_images(read, mirrored).near == shared_images(mirrored, read).near == 8
    write_hashes(tmp_path / "mirrored.hashes", [mirrored])
    assert shared_images(read, read_hashes(tmp_path / "mirrored.hashes")[0]).near == 8, "two hash files"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-30], "is damaged"),
        (lambda text: text.replace('"open_r1_image_hashes": 1', '"open_r1_image_hashes": 7'), "of version 7"),
        (lambda text: text[:40], "cannot be read as a hash file"),
    ],
)
def test_a_damaged_hash_file_is_refused(tmp_path: Path, damage: Callable[[str], str], message: str) -> None:
    path = tmp_path / "set.hashes"
    write_hashes(path, [split_of("set", [encoded(originals(2)[0])])])
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=message):
        read_hashes(path)


def test_another_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UserError, match="is no hash file"):
        write_hashes(tmp_path / "notes", [])


@pytest.mark.slow
def test_the_command_counts_between_and_within_sets(
    tmp_path: Path, load_script: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = originals(8)
    plain = [encoded(image) for image in images]
    save(tmp_path / "one", train=plain[:4], test=[plain[3], encoded(ImageOps.mirror(images[0])), plain[4]])
    save(tmp_path / "two", test=[encoded(images[1], "JPEG", quality=60), plain[7]])
    words = ["overlap.py", str(tmp_path / "one"), str(tmp_path / "two"), "--output", str(tmp_path / "table.csv")]
    monkeypatch.setattr(sys, "argv", [*words, "--pairs", str(tmp_path / "pairs.csv")])
    assert load_script("eval/overlap.py").main() == 0
    rows = {(row["first"], row["second"]): row for row in csv.DictReader((tmp_path / "table.csv").open())}
    within = rows["one train", "one test"]
    assert (within["same_bytes"], within["nearly_same"]) == ("1", "1")
    assert (within["touched_of_first"], within["touched_of_second"]) == ("2", "2")
    assert rows["one train", "two test"]["nearly_same"] == "1"
    assert rows["one test", "two test"]["touched_of_second"] == "0"
    pairs = [*csv.DictReader((tmp_path / "pairs.csv").open())]
    assert sorted(row["score"] == "same bytes" for row in pairs) == [False, False, True]
    assert all(len(row["id_in_first"]) == 16 for row in pairs)
    assert "1 are the same and 1 nearly; 2 of 3 (66.7 %) of its questions" in capsys.readouterr().out


@pytest.mark.slow
def test_without_overlap_leaves_out_what_a_set_or_hash_file_tests(tmp_path: Path) -> None:
    images = originals(8)
    plain = [encoded(image) for image in images]
    rows = datasets.Dataset.from_list(
        [{"id": str(k), "images": [{"bytes": data, "path": None}]} for k, data in enumerate(plain)]
    )
    other = save(tmp_path / "other", train=plain, test=[plain[2], encoded(ImageOps.flip(images[5]))])
    rest, exclusion = without_overlap(rows, [str(other)])
    assert rest["id"][:] == ["0", "1", "3", "4", "6", "7"], "its train split does not count"
    assert (exclusion.questions, exclusion.same_bytes, exclusion.nearly_same) == (2, 1, 1)
    write_hashes(tmp_path / "test.hashes", hash_set(str(other), ["test"]))
    assert without_overlap(rows, [str(tmp_path / "test.hashes")])[0]["id"][:] == rest["id"][:]
    write_hashes(tmp_path / "all.hashes", hash_set(str(other)))
    with pytest.raises(UserError, match="nothing is left to train on"):
        without_overlap(rows, [str(tmp_path / "all.hashes")])


def test_clusters_hold_what_is_nearly_the_same_over_all_splits(tmp_path: Path) -> None:
    images = originals(8)
    first = split_of("a", [encoded(image) for image in images[:4]])
    second = split_of("b", [encoded(ImageOps.mirror(images[0])), encoded(images[0], "JPEG", quality=60)])
    second.questions.append(("both", (0, 1)))
    clusters = near_clusters([first, second])
    assert clusters["a0"] == clusters["b0"] == clusters["b1"] == clusters["both"] == first.keys[0]
    assert len(set(clusters.values())) == 4
    write_clusters(tmp_path / "clusters.csv", clusters)
    assert read_clusters(tmp_path / "clusters.csv") == clusters
    (tmp_path / "clusters.csv").write_text("no,clusters\n")
    with pytest.raises(UserError, match="its columns are not id and cluster"):
        read_clusters(tmp_path / "clusters.csv")


def test_a_split_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    other = save(tmp_path / "other", test=[encoded(originals(2)[0])])
    with pytest.raises(UserError, match="has none of the splits dev; it has test"):
        hash_set(str(other), ["dev"])


@pytest.mark.slow
def test_real_images_are_told_apart_and_found_again(real_dir: Path) -> None:
    folder = real_dir / "omnimedvqa" / "Images" / "BCCD"
    paths = sorted(folder.glob("*.jpg"))[:60]
    if not paths:
        pytest.skip(f"no images in {folder}")
    images = [Image.open(path).convert("RGB") for path in paths]
    draw_box, crops = random.Random(0), []
    for image in images:
        left, top = draw_box.uniform(0, 0.08) * image.width, draw_box.uniform(0, 0.08) * image.height
        crop = ImageOps.mirror(image.crop((round(left), round(top), image.width, image.height)))
        crops.append(encoded(crop.resize((300, 240)), "JPEG", quality=50))
    shared = shared_images(split_of("files", [path.read_bytes() for path in paths]), split_of("crops", crops))
    assert sum(first == second for first, second in shared.pairs) >= 0.95 * len(paths)
    others = {frozenset({paths[first].stem, paths[second].stem}) for first, second in shared.pairs if first != second}
    assert others <= {frozenset({"BloodImage_00037", "BloodImage_00038"})}, "one smear, photographed in two focuses"


@pytest.mark.slow
def test_recall_and_false_pairs_among_changed_phantoms(load_script: Load) -> None:
    results, _ = load_script("benchmarks/overlap.py").measure(200, 1, [0.95])
    recall, false_pairs = results[0.95]
    assert min(recall[:4]) >= 0.98
    assert false_pairs == 0


@pytest.mark.slow
def test_two_hash_files_find_all_but_crops_and_no_false_pair(load_script: Load) -> None:
    results, _ = load_script("benchmarks/overlap.py").measure(200, 1, [0.95], hash_files=True)
    recall, false_pairs = results[0.95]
    assert min(recall[0], recall[1], recall[3]) >= 0.97
    assert false_pairs == 0


def test_lines_of_a_hash_file_are_json(tmp_path: Path) -> None:
    write_hashes(tmp_path / "a.hashes", [split_of("a", [encoded(originals(2)[0])])])
    lines = [json.loads(line) for line in (tmp_path / "a.hashes").read_text().splitlines()]
    assert lines[0]["parameters"]["side"] == 64
    assert [line[0] for line in lines[1:]] == ["split", "image", "question"]
