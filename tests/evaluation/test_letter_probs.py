"""The probabilities of the offered letters are those of a plain forward pass, in any batch and after a kill."""

import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sharp_checkpoints import sharp_checkpoint
from transformers import AutoTokenizer

from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.common.errors import UserError
from open_r1.data.loading import load_rows
from open_r1.evaluation.answering.backends.generator import Generator
from open_r1.evaluation.answering.backends.letter_probs import tokens_of_letters
from open_r1.evaluation.answering.encoder import Encoder
from open_r1.evaluation.answering.perturbations import View
from open_r1.evaluation.answering.questions import answer_rows
from open_r1.evaluation.answering.run import infer
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.evaluation.scoring.results import parse_result, read_results
from open_r1.grading.answer_places import letter_place
from open_r1.vocabulary.labels import Modality
from open_r1.vocabulary.modes import Mode
from open_r1_testbed.phantoms import make_phantoms

FAMILIES = ("qwen2_5_vl", "qwen2_vl", "qwen2", "gemma3")
WRITTEN = ("<answer> {} </answer>", "<answer>{}</answer>", "<think>B or C?</think> <answer> {} </answer>", "{}", "none")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    """Four test images with 20 questions."""
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    return make_phantoms(folder, train=1, test=2, modalities=[Modality.CT, Modality.OCT], workers=1)


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request, tmp_path_factory) -> Path:
    return sharp_checkpoint(tmp_path_factory.mktemp("letters") / request.param, request.param)


def completion_of(name: str) -> str:
    """What a question is answered in these tests: forms and letters in turn."""
    number = sum(name.encode())
    return WRITTEN[number % len(WRITTEN)].format("ABCD"[number // len(WRITTEN) % 4])


@pytest.fixture
def scripted(monkeypatch):
    """Every model writes the completion of `completion_of`; the logits stay its own."""

    def picker(self, names):
        ends = [*self.end_tokens[:1]]
        rows = [self.tokenizer(completion_of(name), add_special_tokens=False)["input_ids"] + ends for name in names]

        def pick(logits, live_rows, step):
            return torch.tensor([rows[row][min(step, len(rows[row]) - 1)] for row in live_rows.tolist()])

        return pick

    monkeypatch.setattr(Generator, "_picker", picker)


def loaded(folder: Path, view: View | None = None) -> tuple[Encoder, Generator]:
    vision = folder.name != "qwen2"
    pixels = 100 * 100 if folder.name.startswith("qwen") and vision else None
    encoder = Encoder(load_processor(folder, max_pixels=pixels), Mode.NOTHINK, has_vision=vision, view=view or View())
    model = load_model(folder, torch.float32)
    return encoder, Generator(model, encoder.tokenizer, 40, letter_probs=True)


def probabilities(encoder: Encoder, generator: Generator, rows, size: int) -> dict[str, dict[str, float] | None]:
    return {r.id: r.letter_probs for batch in answer_rows(generator, encoder, rows, size) for r in batch}


def plain_probabilities(encoder: Encoder, generator: Generator, row) -> dict[str, float] | None:
    """One forward pass of transformers over prompt and completion up to the letter, and a sum over the vocabulary."""
    tokenizer, written = encoder.tokenizer, completion_of(row["id"])
    place = re.search(r"(?<=<answer>) ?([A-D])|^([A-D])$", written)
    if place is None:
        return None
    tokens = tokenizer(written, add_special_tokens=False)["input_ids"]
    texts = [tokenizer.decode(tokens[: count + 1]) for count in range(len(tokens))]
    step = next(number for number, text in enumerate(texts) if len(text) >= place.end())
    images = [Image.open(BytesIO(image["bytes"])).convert("RGB") for image in row["images"]]
    shown = images if encoder.has_vision else []
    text = encoder.render(row, row["problem"], len(shown))
    if encoder.has_vision:
        inputs = encoder.processor(text=[text], images=[shown], return_tensors="pt", add_special_tokens=False)
    else:
        inputs = encoder.processor([text], return_tensors="pt", add_special_tokens=False)
    more = torch.tensor([tokens[:step]], dtype=torch.long)
    for name, filler in (
        ("input_ids", more),
        ("attention_mask", more * 0 + 1),
        *((name, more * 0) for name in ("mm_token_type_ids", "token_type_ids") if name in inputs),
    ):
        inputs[name] = torch.cat([inputs[name], filler], 1)
    with torch.inference_mode():
        shares = generator.model(**inputs).logits[0, -1].float().softmax(-1)
    by_letter = dict.fromkeys("ABCD", 0.0)
    for token in range(len(tokenizer)):
        words = re.sub(r"[\W_]", "", tokenizer.decode([token]))
        if words in by_letter and "\ufffd" not in tokenizer.decode([token]):
            by_letter[words] += float(shares[token])
    return by_letter


def with_bytes(rows, count: int) -> list[dict]:
    chosen = []
    for row in rows.select(range(count)):
        images = [{"bytes": Path(i["path"]).read_bytes() if i["bytes"] is None else i["bytes"]} for i in row["images"]]
        chosen.append({**row, "images": images})
    return chosen


@pytest.mark.slow
def test_they_are_those_of_a_plain_forward_pass_in_any_batch(checkpoint, phantoms, scripted):
    encoder, generator = loaded(checkpoint)
    rows = load_rows(str(phantoms / "test.json"), "test", phantoms)[0]
    by_size = [probabilities(encoder, generator, rows, size) for size in (1, 3, 16)]
    plain = {row["id"]: plain_probabilities(encoder, generator, row) for row in with_bytes(rows, 12)}
    assert sum(shares is not None for shares in plain.values()) >= 6
    assert None in plain.values()
    for name, expected in plain.items():
        for measured in by_size:
            assert measured[name] == (None if expected is None else pytest.approx(expected, abs=1e-5))
    assert all(0 < sum(shares.values()) < 1 for shares in by_size[0].values() if shares is not None)


@pytest.mark.slow
def test_letters_of_shuffled_options_are_those_of_the_row(tmp_path, phantoms, scripted):
    view = View(options="shuffled")
    encoder, generator = loaded(sharp_checkpoint(tmp_path / "qwen2_5_vl"), view)
    rows = load_rows(str(phantoms / "test.json"), "test", phantoms)[0].select(range(8))
    measured, moved = probabilities(encoder, generator, rows, 8), 0
    for row in with_bytes(rows, 8):
        shown = view.problem(row)
        plain = plain_probabilities(encoder, generator, {**row, "problem": shown.problem})
        if plain is None:
            assert measured[row["id"]] is None
            continue
        moved += any(letter != row_letter for letter, row_letter in shown.letters.items())
        of_row = {row_letter: plain[letter] for letter, row_letter in shown.letters.items()}
        assert measured[row["id"]] == pytest.approx(of_row, abs=1e-5)
    assert moved


@pytest.mark.slow
def test_a_run_keeps_them_and_goes_on_where_it_was_stopped(tmp_path, phantoms, scripted):
    path = tmp_path / "out.jsonl"
    checkpoint = sharp_checkpoint(tmp_path / "tiny")

    def run(**changes) -> InferenceSettings:
        values: dict[str, Any] = {"prompt_path": str(phantoms / "test.json"), "image_root": str(phantoms)}
        values |= {"model_path": str(checkpoint), "output_path": str(path), "device": "cpu"}
        values |= {"max_new_tokens": 40, "batch_size": 8, **changes}
        return InferenceSettings(**values)

    infer(run(letter_probs=True))
    lines = path.read_bytes().splitlines(keepends=True)
    measured = {result.id: result.letter_probs for result in read_results(path).results}
    assert 0 < sum(shares is not None for shares in measured.values()) < 20
    assert json.loads(lines[0])["manifest"]["letter_probs"] is True
    assert any("letter_probs" not in json.loads(line) for line in lines[1:])
    path.write_bytes(b"".join(lines[:8]) + lines[8][:40])
    infer(run(letter_probs=True, batch_size=3))
    again = {result.id: result.letter_probs for result in read_results(path).results}
    assert again.keys() == measured.keys()
    for name, shares in measured.items():
        assert again[name] == (None if shares is None else pytest.approx(shares, abs=1e-5))
    with pytest.raises(UserError, match="it differs in letter_probs"):
        infer(run())
    infer(run(output_path=str(tmp_path / "without.jsonl")))
    assert b"letter_probs" not in (tmp_path / "without.jsonl").read_bytes()


@pytest.mark.parametrize("change", [{"samples": 3}, {"temperature": 0.5}, {"backend": "vllm"}])
def test_what_they_cannot_be_read_from_is_refused(change):
    with pytest.raises(UserError, match="--letter_probs"):
        InferenceSettings("model", "data", "out.jsonl", letter_probs=True, **change)


@pytest.mark.slow
def test_tokens_of_a_letter_write_nothing_else(tmp_path):
    tokenizer = load_processor(sharp_checkpoint(tmp_path / "tiny")).tokenizer
    letters = tokens_of_letters(tokenizer)
    assert {"A", "B", "C", "D"} <= set(letters.values())
    assert all(re.sub(r"[\W_]", "", tokenizer.decode([token])) == letter for token, letter in letters.items())


@pytest.mark.slow
def test_the_published_tokenizer_joins_letters_with_what_stands_before_them(real_dir):
    tokenizer = AutoTokenizer.from_pretrained(real_dir / "qwen2_5_vl_processor")
    letters = tokens_of_letters(tokenizer)
    for text, expected in (("<answer>B</answer>", ">B"), ("<answer> B </answer>", " B"), ("(B)", "(B"), ("B", "B")):
        written = [token for token in tokenizer(text)["input_ids"] if token in letters]
        assert [tokenizer.decode([token]) for token in written] == [expected]
        assert letters[written[0]] == "B"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("<answer> C </answer>", 9),
        ("<answer>C</answer>", 8),
        ("<think> B) or C) </think> <answer>(C)</answer>", 35),
        ("<answer>B</answer> <answer>C", 27),
        ("<answer> C <answer>", 9),
        ("<answer>The answer is C.</answer>", 22),
        ("C", 0),
        ("**C) Pneumonia** because C fits", 2),
        ("B) is unlike it. The answer is C.", 31),
        ("</think>C", 8),
        ("<answer>Pneumonia</answer> C", None),  # the block decides, and holds no letter
        ("<answer>C mass</answer>", None),
        ("<think>C", None),
        ("CT", None),
    ],
)
def test_where_the_letter_is_written(text, place):
    assert letter_place(text, "C") == place


@pytest.mark.parametrize("shares", [[0.5], {"A": "0.5"}, {"A": 1.5}, {"A": True}])
def test_a_line_with_damaged_probabilities_is_refused(shares):
    line = {"id": "1", "source": "", "image": "", "modality": None, "task": None, "problem": "A)x, B)y"}
    line |= {"solution": "A", "output": "A", "outcome": "correct", "letter": "A", "tokens": 1}
    assert parse_result(json.dumps(line | {"letter_probs": {"A": 0.5}}).encode()).letter_probs == {"A": 0.5}
    with pytest.raises(ValueError, match="letter_probs"):
        parse_result(json.dumps(line | {"letter_probs": shares}).encode())
