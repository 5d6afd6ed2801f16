"""What a model answers depends on the question alone, whatever is in its batch."""

import random
import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from asked_rows import FAMILIES, loaded, tokens_of
from PIL import Image
from sharp_checkpoints import sharp_families

from open_r1.checkpoints.loading import load_model
from open_r1.evaluation.answering.backends.generator import Generator
from open_r1.evaluation.answering.batches import batches_by_length, prefetch
from open_r1.evaluation.answering.encoder import Encoded


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> dict[str, Path]:
    """A checkpoint of each family with weights large enough that images and questions change its answers."""
    return sharp_families(tmp_path_factory.mktemp("tiny"), FAMILIES)


def rows_of_all_sizes(count: int) -> list[dict]:
    """Questions of 1 to 9 sentences, images of 30 to 300 pixels a side, no two alike."""
    draw = random.Random(0)
    rows = []
    for number in range(count):
        size = (draw.randint(30, 300), draw.randint(30, 300))
        file = BytesIO()
        noise = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype="uint8")
        Image.fromarray(noise).save(file, "PNG")
        problem = "What is shown in this image? " * draw.randint(1, 9) + "A)CT, B)MRI"
        rows.append({"id": str(number), "problem": problem, "images": [{"bytes": file.getvalue(), "path": None}]})
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_tokens_at_batch_1_3_and_16(tiny, family):
    encoder, generator = loaded(tiny[family])
    rows = rows_of_all_sizes(16)
    alone, three, sixteen = (tokens_of(encoder, generator, rows, size) for size in (1, 3, 16))
    assert len(alone) == 16
    assert alone == three == sixteen
    assert len({tuple(written) for (written,) in alone.values()}) > (2 if family == "gemma3" else 5)  # answers differ


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_one_question_gets_what_transformers_own_generate_gives(tiny, family):
    encoder, generator = loaded(tiny[family])
    for row in rows_of_all_sizes(4):
        images = {"images": [[Image.open(BytesIO(row["images"][0]["bytes"]))]]} if encoder.has_vision else {}
        text = encoder.render(row, row["problem"], len(images))
        inputs = encoder.processor(text=[text], return_tensors="pt", add_special_tokens=False, **images)
        plain = generator.model.generate(
            **inputs, max_new_tokens=16, do_sample=False, suppress_tokens=generator.forbidden or None
        )[0, inputs["input_ids"].shape[1] :]
        assert tokens_of(encoder, generator, [row], 1) == {row["id"]: [plain.tolist()]}


@pytest.mark.slow
def test_positions_counted_from_the_padding_would_be_noticed(tiny, monkeypatch):
    encoder, generator = loaded(tiny["qwen2_5_vl"])
    rows = rows_of_all_sizes(16)
    right = tokens_of(encoder, generator, rows, 16)
    monkeypatch.setattr(
        "open_r1.evaluation.answering.backends.decoder.prompt_positions",
        lambda model, prompts: (torch.arange(prompts.ids.size(1)).expand(3, len(prompts.ids), -1), None),
    )
    assert tokens_of(encoder, generator, rows, 16) != right


@pytest.mark.slow
def test_an_image_of_another_question_changes_every_answer(tiny):
    encoder, generator = loaded(tiny["qwen2_5_vl"])
    rows = rows_of_all_sizes(6)
    right = tokens_of(encoder, generator, rows, 6)
    moved = [row | {"images": rows[(number + 1) % 6]["images"]} for number, row in enumerate(rows)]
    wrong = tokens_of(encoder, generator, moved, 6)
    assert all(right[name] != wrong[name] for name in right)


@pytest.mark.slow
def test_tokens_that_stand_for_images_cannot_be_generated(tiny):
    encoder, generator = loaded(tiny["qwen2_5_vl"], new_tokens=6)
    rows = rows_of_all_sizes(3)
    head = generator.model.lm_head
    loving = torch.nn.Linear(head.in_features, head.out_features)
    loving.weight = head.weight
    with torch.no_grad():
        loving.bias.zero_()
        loving.bias[generator.forbidden] = 1e4
    generator.model.lm_head = loving
    assert len(generator.forbidden) == 4
    forbidden = set(generator.forbidden)
    assert not any(forbidden & set(written) for (written,) in tokens_of(encoder, generator, rows, 3).values())
    generator.forbidden = []
    assert all(forbidden >= set(written) for (written,) in tokens_of(encoder, generator, rows[:1], 1).values())


@pytest.mark.slow
def test_settings_of_the_checkpoint_do_not_bend_greedy_decoding(tiny):
    encoder, generator = loaded(tiny["qwen2_5_vl"])
    rows = rows_of_all_sizes(4)
    plain = tokens_of(encoder, generator, rows, 4)
    model = load_model(tiny["qwen2_5_vl"], torch.float32)
    model.generation_config.update(do_sample=True, temperature=5.0, repetition_penalty=1.5)  # Qwen2.5-VL ships 1.05
    assert tokens_of(encoder, Generator(model, encoder.tokenizer, 16), rows, 4) == plain


@pytest.mark.slow
def test_a_completion_ends_at_its_first_end_token_and_counts_it(tiny):
    encoder, generator = loaded(tiny["qwen2_5_vl"])
    end = encoder.tokenizer.convert_tokens_to_ids("<|im_end|>")
    letters = encoder.tokenizer("A B", add_special_tokens=False)["input_ids"]
    pad = encoder.tokenizer.pad_token_id
    generator.tokens = lambda prompts, names: torch.tensor([[*letters, end, pad], [*letters, *letters][:4]])
    (ended,), (cut_off,) = generator(encoder(rows_of_all_sizes(2)))
    assert (ended.text, ended.tokens) == ("A B", len(letters) + 1)
    assert cut_off.tokens == 4


def test_the_longest_prompts_come_first_and_every_row_once():
    assert batches_by_length([3, 9, 5, 9, 1], 2) == [[1, 3], [2, 0], [4]]


def test_the_next_batch_is_made_while_the_first_is_in_use():
    started: list[int] = []
    second = threading.Event()

    def make(number: int) -> Encoded:
        started.append(number)
        if number == 1:
            second.set()
        return Encoded([{"id": str(number)}], [], None, [])

    batches = prefetch(make, range(50))
    batch = next(batches)
    assert second.wait(timeout=600)  # nobody has asked for the second one yet
    assert len(started) <= 4  # and the memory holds only a few
    assert [batch.rows[0]["id"], *(batch.rows[0]["id"] for batch in batches)] == [str(n) for n in range(50)]


def test_an_error_while_making_a_batch_is_raised():
    def make(number: int) -> Encoded:
        raise RuntimeError(f"batch {number}")

    with pytest.raises(RuntimeError, match="batch 0"):
        list(prefetch(make, range(3)))
