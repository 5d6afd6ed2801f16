"""Samples, removed and swapped images, permuted options, blind floors, several checkpoints, other backends."""

import hashlib
import importlib.util
import json
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asked_rows import outputs
from PIL import Image

from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.common.errors import UserError
from open_r1.data.loading import load_rows
from open_r1.evaluation.answering.backends.generator import Generator
from open_r1.evaluation.answering.backends.vllm_backend import VllmEncoder, decoding, engine
from open_r1.evaluation.answering.encoder import Encoder
from open_r1.evaluation.answering.perturbations import View, choose_donors, noise, shuffle_options
from open_r1.evaluation.answering.questions import answer_rows
from open_r1.evaluation.answering.run import infer
from open_r1.evaluation.answering.settings import Sampling
from open_r1.evaluation.scoring.blind_floor import BlindGuesser
from open_r1.evaluation.scoring.results import read_results
from open_r1.grading.problems import options_in, solution_letter
from open_r1.vocabulary.modes import Mode


def listed(rows: Any) -> list[Any]:
    return [rows[number] for number in range(len(rows))]


def load(tiny: Path, sampling: Sampling | None = None, view: View | None = None) -> tuple[Encoder, Generator]:
    encoder = Encoder(load_processor(tiny), Mode.NOTHINK, view=view or View())
    return encoder, Generator(load_model(tiny, torch.float32), encoder.tokenizer, 6, sampling)


# --- shared images -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_shared_image_changes_no_answer(tiny, phantoms):
    """Five questions on an image, whose beginning is computed once, against one question at a time."""
    encoder, generator = load(tiny)
    rows, _ = load_rows(phantoms / "test.json", image_root=phantoms)
    together = {r.id: r.output for batch in answer_rows(generator, encoder, rows, 16) for r in batch}
    alone = {r.id: r.output for batch in answer_rows(generator, encoder, rows, 1) for r in batch}
    assert together == alone
    assert len(set(alone.values())) > 10
    prompts = encoder(listed(rows)).prompts
    assert len(prompts.tokens) == 20
    assert len(prompts.grids) == 4  # each image is there once


@pytest.mark.slow
def test_questions_with_and_without_image_share_a_batch(tiny, phantoms):
    encoder, generator = load(tiny)
    rows, _ = load_rows(phantoms / "test.json", image_root=phantoms)
    mixed = [{**row, "image": None} if number % 3 == 0 else row for number, row in enumerate(listed(rows))]
    together = [completions[0].text for completions in generator(encoder(mixed))]
    assert together == [generator(encoder([row]))[0][0].text for row in mixed]


@pytest.mark.slow
def test_rows_that_have_ended_leave_the_batch(tiny, phantoms):
    """An end token that is often the likeliest: rows stop at different steps, and the others are not disturbed."""
    encoder, generator = load(tiny)
    rows, _ = load_rows(phantoms / "test.json", image_root=phantoms)
    written = generator.tokens(encoder(listed(rows)).prompts, rows["id"])
    end = Counter(written[:, 1:4].flatten().tolist()).most_common(1)[0][0]
    generator.model.generation_config.eos_token_id = end
    ending = Generator(generator.model, encoder.tokenizer, generator.max_new_tokens)
    assert end in ending.end_tokens
    together = [completions[0] for completions in ending(encoder(listed(rows)))]
    assert together == [ending(encoder([row]))[0][0] for row in listed(rows)]
    assert len({completion.tokens for completion in together}) > 1


# --- samples ---------------------------------------------------------------------------------------------------------


# --- other images, other orders ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_the_image_no_image_is_asked_about(settings, tiny, phantoms):
    rows, _ = load_rows(phantoms / "test.json", image_root=phantoms)
    prompts = Encoder(load_processor(tiny), Mode.NOTHINK, view=View("none"))(listed(rows)).prompts
    assert prompts.pixel_values is None
    marks = load_processor(tiny).tokenizer.convert_tokens_to_ids(["<|image_pad|>", "<|vision_start|>"])
    assert not any(mark in tokens for tokens in prompts.tokens for mark in marks)
    plain, none = settings("shown"), settings("none", image="none")
    assert outputs(plain) != outputs(none)
    file = read_results(none.output_path)
    assert (file.manifest["image"], file.manifest["seed_used"]) == ("none", None)
    assert {r.image for r in file.results} == {r.image for r in read_results(plain.output_path).results}


@pytest.mark.slow
def test_noise_has_the_images_size_and_follows_the_question(settings):
    image = noise((30, 20), "a", 0)
    assert image.size == (30, 20)
    assert image.tobytes() == noise((30, 20), "a", 0).tobytes()
    assert image.tobytes() != noise((30, 20), "b", 0).tobytes() != noise((30, 20), "b", 1).tobytes()
    values = np.asarray(noise((200, 200), "a", 0))
    assert values.mean() == pytest.approx(127.5, abs=1.0)  # standard error 74 / sqrt(120,000) = 0.21
    assert outputs(settings("small", image="noise", batch_size=3)) == outputs(settings("large", image="noise"))


@pytest.mark.slow
def test_a_shuffled_image_is_never_the_questions_own(settings, phantoms):
    keys = {f"q{n}": [f"p{n % 4}"] for n in range(200)}
    donors = choose_donors(keys, 0)
    assert all(keys[name] != keys[donor] for name, [(donor, _)] in donors.items())
    assert donors == choose_donors(dict(reversed(keys.items())), 0) != choose_donors(keys, 1)
    drawn = Counter((keys[name][0], keys[donor][0]) for name, [(donor, _)] in donors.items())
    assert len(drawn) == 12  # each of 4 images is replaced by each of the 3 others
    digest = hashlib.sha256(repr(sorted((name, donor) for name, [(donor, _)] in donors.items())).encode()).hexdigest()
    assert digest[:16] == "d1473cf29ef2f35c"  # the draw of an evaluation that was begun before goes on
    with pytest.raises(UserError, match="at least two different images"):
        choose_donors({"a": ["p"], "b": ["p"]}, 0)
    plain, shuffled = outputs(settings("shown")), outputs(settings("other", image="shuffled"))
    assert sum(plain[name] != shuffled[name] for name in plain) > 10
    assert outputs(settings("few", image="shuffled", limit=5)).items() <= shuffled.items()


def orders_of(problem: str, start: str, seeds: int) -> set[str]:
    """The orders that so many seeds give a problem's options, which stay the same behind the same `start`."""
    original = options_in(problem)
    orders = set()
    for seed in range(seeds):
        shuffled = shuffle_options(problem, "q", seed)
        assert {shuffled.letters[letter]: text for letter, text in options_in(shuffled.problem).items()} == original
        assert shuffled.problem.startswith(start)
        orders.add("".join(shuffled.letters.values()))
    return orders


@pytest.fixture
def all_movable(monkeypatch):
    """As if no option spoke of another, so that problems that are hard to read again can be permuted."""
    monkeypatch.setattr(
        "open_r1.evaluation.answering.perturbations.fixed_options", lambda question, options: frozenset()
    )


def test_permuted_options_are_the_same_options(all_movable):
    problem = "Which, A) or B), is it? A)left lung, B)x (as in C)), D, C)right, inner, D)none of these"
    assert len(orders_of(problem, "Which, A) or B), is it? A)", seeds=30)) > 10  # of 24
    assert shuffle_options(problem, "q", 3) == shuffle_options(problem, "q", 3)


def test_options_on_lines_of_their_own_stay_on_lines(all_movable):
    problem = "A 3-year-old has a cough.\nWhat next?\nA) Wait, B) is wrong\nB) A) and more\nC) Treat (see A) above)"
    assert len(orders_of(problem, "A 3-year-old has a cough.\nWhat next?\nA) ", seeds=20)) == 6


@pytest.mark.slow
def test_the_letter_of_a_permuted_answer_is_mapped_back(settings, tiny, phantoms):
    """A model that always says B is right where the original's solution stands at B as it was asked."""
    rows, _ = load_rows(phantoms / "test.json", image_root=phantoms)
    encoder, _ = load(tiny, view=View(options="shuffled", seed=2))
    from open_r1.evaluation.answering.backends.generator import Completion

    def says_b(encoded):
        return [[Completion("<answer>B</answer>", 3)] for _ in encoded.rows]

    results = [r for batch in answer_rows(says_b, encoder, rows, 8) for r in batch]
    moved = 0
    for result in results:
        offered, original = options_in(result.asked or result.problem), options_in(result.problem)
        assert result.letter is not None
        assert original[result.letter] == offered["B"]
        assert result.correct == (original[solution_letter(result.solution)] == offered["B"])
        moved += result.letter != "B"
    assert moved > 10
    run_settings = settings(options="shuffled", seed=2)
    infer(run_settings)
    assert {r.asked for r in read_results(run_settings.output_path).results} == {r.asked for r in results}


@pytest.mark.slow
def test_a_question_that_holds_an_images_token_is_set_aside(tiny, phantoms):
    encoder, _ = load(tiny)
    rows, _ = load_rows(phantoms / "test.json", image_root=phantoms)
    rows = listed(rows)
    odd = {**rows[0], "problem": "What is <|image_pad|>? A)a, B)b"}
    encoded = encoder([odd, rows[1]])
    assert [row["id"] for row in encoded.rows] == [rows[1]["id"]]
    assert encoded.failed[0][1].startswith("image-token: ")


# --- direct ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_direct_mode_asks_for_a_letter(settings):
    run_settings = settings(mode="direct")
    infer(run_settings)
    manifest = read_results(run_settings.output_path).manifest
    assert (manifest["mode"], manifest["prompt_name"], manifest["method"]) == ("direct", "direct", "zero-shot")
    assert "letter" in manifest["prompt"]
    assert "<answer>" not in manifest["prompt"]


# --- what training gives away ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_question_knows_its_blind_guess_and_whether_its_image_was_seen(settings, phantoms, tmp_path):
    train = json.loads((phantoms / "train.json").read_text())
    test = json.loads((phantoms / "test.json").read_text())
    leaked = {"image": test[0]["image"], "problem": "Seen? A)yes, B)no", "solution": "<answer> A </answer>"}
    (tmp_path / "with_leak.json").write_text(json.dumps([*train, leaked]))
    run_settings = settings(train_path=str(tmp_path / "with_leak.json"))
    infer(run_settings)
    file = read_results(run_settings.output_path)
    guesser = BlindGuesser([*train, leaked])
    assert [r.blind for r in file.results] == [
        guesser.points({"problem": r.problem, "solution": r.solution}) for r in file.results
    ]
    assert {r.image.endswith(test[0]["image"]): r.seen for r in file.results} == {True: True, False: False}
    assert file.manifest["train_data"] == str(tmp_path / "with_leak.json")
    with pytest.raises(UserError, match="train_data_sha256"):
        infer(settings(train_path=str(phantoms / "train.json")))


@pytest.mark.slow
def test_the_training_questions_are_those_the_checkpoint_was_trained_on(settings, tiny, phantoms, tmp_path, capsys):
    infer(settings("none"))
    assert "no training split, so no blind floor" in capsys.readouterr().err
    assert {(r.blind, r.seen) for r in read_results(settings("none").output_path).results} == {(None, None)}
    trained = tmp_path / "trained"
    trained.mkdir()
    for file in tiny.iterdir():
        (trained / file.name).symlink_to(file)
    record = {
        "method": "sft",
        "mode": "nothink",
        "data": {"path": str(phantoms / "train.json")},
        "script_arguments": {"image_root": str(phantoms)},
    }
    (trained / "run.json").write_text(json.dumps(record))
    run_settings = settings("trained", model_path=str(trained))
    infer(run_settings)
    file = read_results(run_settings.output_path)
    assert (file.manifest["method"], file.manifest["run_dir"]) == ("sft", str(trained))
    assert file.manifest["train_data"] == str(phantoms / "train.json")
    assert {r.seen for r in file.results} == {False}
    assert {type(r.blind) for r in file.results} == {float}
    record["data"]["path"] = str(tmp_path / "gone")
    (trained / "run.json").write_text(json.dumps(record))
    infer(settings("gone", model_path=str(trained)))
    assert "gone is not there" in capsys.readouterr().err


# --- checkpoints -----------------------------------------------------------------------------------------------------


# --- vLLM ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vllm is installed here")
def test_vllm_where_it_is_not_installed_is_one_line(settings):
    with pytest.raises(UserError, match=r"vllm is not installed; pip install '\.\[vllm\]'"):
        infer(settings(backend="vllm"))
    assert not Path(settings().output_path).exists()


def test_what_vllm_would_be_asked(settings, tiny, phantoms):
    """The requests alone: nothing here runs vLLM."""
    rows, _ = load_rows(phantoms / "test.json", image_root=phantoms)
    rows = listed(rows)
    encoder = VllmEncoder(load_processor(tiny, max_pixels=5000), Mode.NOTHINK)
    prompts = encoder([rows[0], {**rows[1], "images": []}, {**rows[2], "images": rows[2]["images"] * 3}]).prompts
    assert prompts[0]["prompt"].count("<|image_pad|>") == 1
    assert prompts[0]["multi_modal_data"]["image"].size == (384, 384)
    assert prompts[1].keys() == {"prompt"}
    assert prompts[2]["prompt"].count("<|image_pad|>") == len(prompts[2]["multi_modal_data"]["image"]) == 3
    greedy = decoding(Sampling(), ["a", "b"], 7, [1, 2], [5])
    assert greedy[0] == greedy[1]
    assert (greedy[0]["temperature"], greedy[0]["repetition_penalty"], greedy[0]["max_tokens"]) == (0.0, 1.0, 7)
    assert (greedy[0]["stop_token_ids"], greedy[0]["logit_bias"]) == ([1, 2], {5: -100.0})
    sampled = decoding(Sampling(3, 0.8), ["a", "b"], 7, [1], [])
    assert len({request["seed"] for request in sampled}) == 6
    assert sampled[3:] == decoding(Sampling(3, 0.8), ["b"], 7, [1], [])
    arguments = engine(settings(dtype="float32"), tiny, encoder)
    assert arguments["mm_processor_kwargs"] == {"min_pixels": 3136, "max_pixels": 5000}
    assert arguments["dtype"] == "float32"
    assert arguments["limit_mm_per_prompt"] == {"image": 1, "video": 0}
    assert engine(settings(dtype="float32"), tiny, encoder, 3)["limit_mm_per_prompt"] == {"image": 3, "video": 0}


def test_a_stored_image_and_its_file_are_one_image_only_where_both_are_stored(phantoms, tmp_path):
    """Paths and contents cannot be compared: then nothing is said about seen images."""
    from open_r1.evaluation.scoring.train_overlap import load_training_set

    training = load_training_set(str(phantoms / "train.json"), str(phantoms))
    image = BytesIO()
    Image.new("RGB", (8, 8)).save(image, "PNG")
    assert training.has_image_of({"images": [{"bytes": image.getvalue(), "path": "x.png"}]}) is None
    assert training.has_image_of({"images": []}) is None
    one = {"bytes": None, "path": next(iter(training.images))}
    assert training.has_image_of({"images": [one]}) is True
    assert training.has_image_of({"images": [one, {"bytes": None, "path": "x.png"}]}) is True
    assert training.has_image_of({"images": [{"bytes": None, "path": "x.png"}]}) is False
