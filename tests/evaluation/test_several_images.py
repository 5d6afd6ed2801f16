"""Questions with several images in evaluation: batches, marks, changes of images and options, limits, results."""

import json
import random
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sharp_checkpoints import sharp_families

from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.evaluation.answering.backends.decoder import Prompts
from open_r1.evaluation.answering.backends.generator import Generator
from open_r1.evaluation.answering.backends.vllm_backend import VllmEncoder
from open_r1.evaluation.answering.batches import batches_by_length
from open_r1.evaluation.answering.encoder import Encoder
from open_r1.evaluation.answering.perturbations import View, choose_donors, shuffle_options
from open_r1.evaluation.answering.run import infer
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.evaluation.scoring.results import read_results
from open_r1.grading.problems import options_in
from open_r1.modeling.prompt_batch import completion_lengths
from open_r1.vocabulary.modes import Mode

COUNTS = (6, 1, 0, 2, 3, 1, 5, 4, 0, 2)
FAMILIES = ("qwen2_5_vl", "qwen2_vl", "qwen3_vl")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> dict[str, Path]:
    """A checkpoint of each family with weights large enough that images change its answers."""
    return sharp_families(tmp_path_factory.mktemp("tiny"), FAMILIES)


def png(number: int) -> bytes:
    draw, file = random.Random(number), BytesIO()
    size = (draw.randint(30, 160), draw.randint(30, 160))
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (*size, 3), dtype="uint8")).save(file, "PNG")
    return file.getvalue()


def rows_of_all_counts() -> list[dict[str, Any]]:
    """Questions with none to six images of many sizes, with marks and without; some share images in part or all."""
    rows = []
    for number, count in enumerate(COUNTS):
        problem = "What changed? " * (number % 4 + 1) + "A)CT, B)MRI"
        if number % 2 and count:
            problem = "First <image>" + ", then <image>" * (count - 1) + f": {problem}"
        images = [{"bytes": png(number * 10 + place), "path": None} for place in range(count)]
        rows.append({"id": str(number), "problem": problem, "images": images, "answer_type": "choice"})
    rows.append(rows[3] | {"id": "same images, other text", "problem": rows[3]["problem"].replace("First", "Now")})
    rows.append(rows[3] | {"id": "same images, same text before", "problem": rows[3]["problem"] + " of the head"})
    rows.append(rows[0] | {"id": "same images, no marks", "problem": "Which? A)CT, B)MRI"})
    rows.append(rows[3] | {"id": "other order", "images": rows[3]["images"][::-1]})
    rows.append(rows[4] | {"id": "shared in part", "images": [rows[4]["images"][1], *rows[7]["images"][:2]]})
    return rows


def loaded(folder: Path) -> tuple[Encoder, Generator]:
    encoder = Encoder(load_processor(folder, max_pixels=100 * 100), Mode.NOTHINK)
    return encoder, Generator(load_model(folder, torch.float32), encoder.tokenizer, 12)


def tokens_of(encoder: Encoder, generator: Generator, rows: list[dict[str, Any]], size: int) -> dict[str, list[int]]:
    """id -> the tokens of its completion, in batches of `size`."""
    collected: dict[str, list[int]] = {}
    for batch in batches_by_length([len(row["problem"]) for row in rows], size):
        encoded = encoder([rows[index] for index in batch])
        assert encoded.failed == []
        names = [row["id"] for row in encoded.rows]
        tokens = generator.tokens(encoded.prompts, names)
        lengths = completion_lengths(tokens, generator.end_tokens).tolist()
        for name, written, length in zip(names, tokens.tolist(), lengths, strict=True):
            collected[name] = written[:length]
    return collected


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_completions_do_not_depend_on_the_batch_and_are_those_of_generate(tiny, family):
    encoder, generator = loaded(tiny[family])
    rows = rows_of_all_counts()
    alone, some, together = (tokens_of(encoder, generator, rows, size) for size in (1, 4, len(rows)))
    assert alone == some == together
    assert len(set(map(tuple, alone.values()))) > 5
    for row in (rows[0], rows[3], rows[4], rows[-1]):
        images = [Image.open(BytesIO(image["bytes"])) for image in row["images"]]
        text = encoder.render(row, row["problem"], len(images))
        inputs = encoder.processor(text=[text], images=images, return_tensors="pt")
        plain = generator.model.generate(
            **inputs, max_new_tokens=12, do_sample=False, suppress_tokens=generator.forbidden
        )[0, inputs["input_ids"].shape[1] :]
        assert alone[row["id"]] == plain.tolist()


@pytest.mark.slow
def test_the_order_of_images_and_the_place_of_marks_count(tiny):
    encoder, generator = loaded(tiny["qwen2_5_vl"])
    rows = {row["id"]: row for row in rows_of_all_counts()}
    moved = rows["3"] | {
        "id": "marks elsewhere",
        "problem": f"<image><image>{rows['3']['problem'].replace('<image>', '')}",
    }
    written = tokens_of(encoder, generator, [*rows.values(), moved], 16)
    assert len({tuple(written[name]) for name in ("3", "other order", "marks elsewhere")}) > 1


@pytest.mark.slow
def test_an_image_is_cut_into_patches_once_for_all_questions_of_a_batch(tiny):
    encoder, generator = loaded(tiny["qwen2_5_vl"])
    rows = rows_of_all_counts()
    prompts: Prompts = encoder(rows).prompts
    assert prompts.grids is not None
    assert len(prompts.grids) == sum(COUNTS)
    looks = []
    visual = generator.model.model.visual
    visual.register_forward_pre_hook(
        lambda module, arguments, options: looks.append(options["grid_thw"]), with_kwargs=True
    )
    generator.tokens(prompts, [row["id"] for row in rows])
    images_seen = sum(map(len, looks))
    # Of the five further questions two share images and the text before them; the others are computed by themselves.
    assert images_seen == sum(COUNTS) + 2 + 2 + 3


# ------------------------------------------------------------------------------------------------- changes


def test_shuffled_images_are_never_the_questions_own():
    keys = {str(n): [f"p{(n + place) % 9}" for place in range(n % 4 + 1)] for n in range(200)}
    places: dict[tuple[str, int], str] = {
        (name, place): key for name, row_keys in keys.items() for place, key in enumerate(row_keys)
    }
    donors = choose_donors(keys, 0)
    assert donors == choose_donors(dict(reversed(keys.items())), 0) != choose_donors(keys, 1)
    for name, row_keys in keys.items():
        assert len(donors[name]) == len(row_keys)
        assert not {places[place] for place in donors[name]} & {*row_keys}


def test_noise_is_drawn_for_every_image():
    row = rows_of_all_counts()[4]
    view = View(image="noise")
    images = [view.open(row, place) for place in range(3)]
    assert [image.size for image in images] == [Image.open(BytesIO(image["bytes"])).size for image in row["images"]]
    assert len(set(view.shown_image_keys(row))) == len({image.tobytes()[:300] for image in images}) == 3


def test_options_that_are_images_are_shuffled_with_their_images():
    images = [{"bytes": png(number), "path": None} for number in range(4)]
    problem = "Which of these is as <image>? A)<image>, B)<image>, C)<image>"
    row = {"id": "x", "problem": problem, "images": images, "answer_type": "choice"}
    orders = set()
    for seed in range(30):
        view = View(options="shuffled", seed=seed)
        shown = view.problem(row)
        assert shown.problem == problem
        assert shown == shuffle_options(problem, "x", seed)
        keys, plain = view.shown_image_keys(row), View().shown_image_keys(row)
        assert keys[0] == plain[0]
        for place, letter in enumerate(options_in(shown.problem), 1):
            assert keys[place] == plain["ABC".index(shown.letters[letter]) + 1]
        orders.add(keys)
    assert len(orders) == 6


# ------------------------------------------------------------------------------------------------- resizing


@pytest.mark.parametrize("kind", [Encoder, VllmEncoder])
def test_qwen_vl_utils_resizes_before_the_processor(tiny, kind):
    processor = load_processor(tiny["qwen2_5_vl"], max_pixels=100 * 100)
    rows = rows_of_all_counts()[:4]
    rows.append(rows[1] | {"id": "thin", "images": [{"bytes": thin(), "path": None}]})
    encoded = kind(processor, Mode.NOTHINK, by_qwen=True)(rows)
    assert [(row["id"], reason.split(":")[0]) for row, reason in encoded.failed] == [("thin", "not-taken")]
    plain = kind(processor, Mode.NOTHINK)(rows[:4])
    if kind is VllmEncoder:
        for ours, theirs in zip(encoded.prompts, plain.prompts, strict=True):
            assert ours["prompt"] == theirs["prompt"]
        images = encoded.prompts[0]["multi_modal_data"]["image"]
        assert all(side % 28 == 0 for image in images for side in image.size)
        return
    assert encoded.prompts.tokens == plain.prompts.tokens
    assert torch.equal(encoded.prompts.grids, plain.prompts.grids)
    assert not torch.equal(encoded.prompts.pixel_values, plain.prompts.pixel_values)


def thin() -> bytes:
    file = BytesIO()
    Image.new("RGB", (2000, 12)).save(file, "PNG")
    return file.getvalue()


# ------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.png").write_bytes(png(number))
    lines = []
    for number, count in enumerate(COUNTS):
        images = [f"{(number + place) % 8}.png" for place in range(count)]
        kind = ("choice", "closed", "open")[number % 3]
        texts = {
            "choice": (f"What is {number}? A)CT, B)MRI", "A"),
            "closed": (f"Is it {number}?", "yes"),
            "open": (f"Where is {number}?", "left lung"),
        }
        problem, solution = texts[kind]
        lines.append({"id": str(number), "images": images, "problem": problem, "solution": solution})
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("image", ["shown", "none", "noise", "shuffled"])
def test_infer_answers_them_and_says_which_prompts_it_used(tiny, data, tmp_path, image):
    output = tmp_path / "answers.jsonl"
    settings = InferenceSettings(
        model_path=str(tiny["qwen2_5_vl"]),
        prompt_path=str(data),
        output_path=str(output),
        max_new_tokens=3,
        max_pixels=56 * 56,
        device="cpu",
        image=image,  # type: ignore[arg-type]
    )
    assert infer(settings) == 0
    file = read_results(output)
    assert len(file.results) == len(COUNTS)
    assert [result.error for result in file.results] == [None] * len(COUNTS)
    assert file.manifest["prompt_name"] == "train-nothink, train-nothink-closed, train-nothink-open"
    assert len({result.image for result in file.results}) == len(COUNTS)
    assert infer(settings) == 0  # and the same command continues
    (data / "3.png").write_bytes(png(99))
    if image == "shown":
        from open_r1.common.errors import UserError

        with pytest.raises(UserError, match="content_sha256"):
            infer(settings)
