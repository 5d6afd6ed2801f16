"""The format start teaches tags, to answer what was thought, and nothing about answers; a seed repeats."""

import copy
import random
import runpy
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.data.loading import load_rows
from open_r1.data.row_images import row_images
from open_r1.grading.formats import follows_format
from open_r1.grading.problems import options_in
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import build_messages, row_messages
from open_r1_testbed.format_start import _loss, teach_format
from open_r1_testbed.phantoms import make_phantoms
from open_r1_testbed.tiny_models import TINY_BASE

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_phantoms(tmp_path_factory.mktemp("phantoms") / "set", 4, 1, seed=11)


@pytest.fixture(scope="module")
def rows(phantoms: Path) -> Any:
    return load_rows(phantoms / "train.json", image_root=phantoms)[0]


@pytest.fixture(scope="module")
def processor() -> Any:
    return load_processor(TINY_BASE)


def answers(model: Any, processor: Any, rows: Any) -> list[str]:
    prompts = [
        processor.apply_chat_template(
            build_messages(row["problem"], Mode.THINK), tokenize=False, add_generation_prompt=True
        )
        for row in rows
    ]
    opened = [row_images(row)[0] for row in rows]
    inputs = processor(text=prompts, images=opened, padding=True, return_tensors="pt")
    torch.manual_seed(0)
    tokens = model.generate(**inputs, max_new_tokens=16, do_sample=True, temperature=1.0)
    return processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


@pytest.mark.slow
def test_questions_with_and_without_images_stand_in_one_batch(rows: Any, processor: Any) -> None:
    model = load_model(TINY_BASE, dtype=torch.float32)
    with_image, without = rows[0], {**rows[1], "images": []}

    def lesson(row: dict[str, Any], rng: random.Random) -> tuple[list[dict[str, Any]], str]:
        return row_messages(row, Mode.NOTHINK), "A"

    def gradient(*batch: dict[str, Any]) -> torch.Tensor:
        model.zero_grad()
        _loss(model, processor, list(batch), lesson, random.Random(0)).backward()
        gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in model.parameters()]
        return torch.cat([values.flatten() for values in gradients])

    apart = (gradient(with_image) + gradient(without)) / 2  # both answers have as many tokens
    together = gradient(without, with_image)
    assert (together - apart).norm() < 1e-5 * apart.norm()


@pytest.mark.slow
def test_eighty_steps_teach_the_form_and_leave_the_letters_open(rows: Any, processor: Any) -> None:
    model = load_model(TINY_BASE, dtype=torch.float32)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    losses = teach_format(model, processor, rows, seed=0, answer="thought")
    # 15 tokens of which one is a fair draw among 4: at best ln(4) / 15 = 0.092
    assert len(losses) == 80
    assert 0.07 < losses[-1] < 0.25, losses
    written = answers(model, processor, rows)
    whole = [
        (text.split()[5], options_in(row["problem"]).get(text.split()[5]) == text.split()[1])
        for text, row in zip(written, rows, strict=True)
        if follows_format(text, Mode.THINK) and len(text.split()) == 7
    ]
    assert len(whole) / len(written) > 0.9
    letters = Counter(letter for letter, _ in whole)
    assert set(letters) == set("ABCD")
    assert max(letters.values()) < 0.5 * len(written), letters
    assert sum(consistent for _, consistent in whole) / len(whole) > 0.6  # the letter of what it thought; seen 0.75
    unmoved = [name for name, weight in model.named_parameters() if torch.equal(weight, before[name])]
    assert not unmoved


@pytest.mark.slow
def test_solutions_are_not_looked_at_and_a_seed_repeats(rows: Any, processor: Any) -> None:
    base = load_model(TINY_BASE, dtype=torch.float32)
    blind = rows.remove_columns(["solution", "modality", "task"])

    def train(data: Any, seed: int) -> list[float]:
        return teach_format(copy.deepcopy(base), processor, data, seed=seed, steps=2, batch=4)

    assert train(rows, 1) == train(blind, 1)
    assert train(rows, 1) != train(rows, 2)


@pytest.mark.slow
def test_command_leaves_a_checkpoint_that_loads_and_is_not_overwritten(
    repository: Path,
    phantoms: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script, output = repository / "scripts" / "teach_format.py", tmp_path / "start"
    flags = ["--model_name_or_path", str(TINY_BASE), "--dataset_name", str(phantoms / "train.json")]
    flags += ["--image_root", str(phantoms), "--output_dir", str(output), "--max_steps", "2", "--batch_size", "4"]
    monkeypatch.setattr(sys, "argv", [str(script), *flags])
    ended = []
    for _ in range(2):
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(script), run_name="__main__")
        ended.append(stop.value.code)
    assert ended == [0, 2]
    written = capsys.readouterr()
    assert "in 2 steps" in written.out
    assert written.err.splitlines()[-1].startswith(f"error: {output} is not empty and was not made")
    load_model(output)
    assert load_processor(output).tokenizer.padding_side == "left"
