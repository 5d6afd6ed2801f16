"""Several samples of a question: drawn by its id, and the majority decides."""

from pathlib import Path
from typing import Any

import pytest
import torch

from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.common.errors import UserError
from open_r1.data.loading import load_rows
from open_r1.evaluation.answering.backends.generator import Generator
from open_r1.evaluation.answering.backends.sampling import draw, uniforms
from open_r1.evaluation.answering.encoder import Encoder
from open_r1.evaluation.answering.perturbations import View
from open_r1.evaluation.answering.questions import answer_rows
from open_r1.evaluation.answering.run import infer
from open_r1.evaluation.answering.settings import Sampling
from open_r1.evaluation.scoring.results import Sample, majority, read_results
from open_r1.vocabulary.modes import Mode

RIGHT, WRONG, UNREAD = "correct", "wrong", "unparsed"


def listed(rows: Any) -> list[Any]:
    return [rows[number] for number in range(len(rows))]


def load(tiny: Path, sampling: Sampling | None = None, view: View | None = None) -> tuple[Encoder, Generator]:
    encoder = Encoder(load_processor(tiny), Mode.NOTHINK, view=view or View())
    return encoder, Generator(load_model(tiny, torch.float32), encoder.tokenizer, 6, sampling)


@pytest.mark.slow
def test_samples_are_the_same_at_batch_1_3_and_16_and_differ_among_themselves(tiny, phantoms):
    encoder, generator = load(tiny, Sampling(4, 0.7, seed=3))
    rows, _ = load_rows(phantoms / "test.json", image_root=phantoms)

    def written(size: int) -> dict[str, list[str]]:
        results = [r for batch in answer_rows(generator, encoder, rows, size) for r in batch]
        return {r.id: [sample.output for sample in r.samples or ()] for r in results}

    alone = written(1)
    assert alone == written(3) == written(16)
    assert {len(samples) for samples in alone.values()} == {4}
    assert sum(len(set(samples)) > 1 for samples in alone.values()) > 10
    reseeded = Generator(generator.model, encoder.tokenizer, 6, Sampling(4, 0.7, seed=4))
    batch = encoder(listed(rows)[:5])
    assert reseeded(batch) != generator(batch)
    assert generator(batch) == generator(batch)


def test_tokens_are_drawn_with_the_probabilities_of_the_model():
    """Chi-square with 7 degrees of freedom: 24.3 is exceeded once in a thousand draws of this test."""
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5, -torch.inf, 3.0, 0.0, 1.5])
    numbers = uniforms(Sampling(2, 0.8, seed=1), [f"question {n}" for n in range(200)], 50).flatten()
    drawn = draw(logits.expand(len(numbers), -1), 0.8, numbers)
    counts = torch.bincount(drawn, minlength=9).double()
    expected = torch.softmax(logits.double() / 0.8, -1) * len(numbers)
    possible = expected > 0
    assert len(numbers) == 20_000
    assert counts[~possible].sum() == 0
    statistic = ((counts - expected) ** 2 / expected)[possible].sum().item()
    assert statistic < 24.3, f"chi-square {statistic:.1f}"


def test_a_number_belongs_to_seed_question_and_sample():
    two = uniforms(Sampling(2, 1.0, seed=5), ["a", "b"], 3)
    assert torch.equal(two[2:], uniforms(Sampling(2, 1.0, seed=5), ["b"], 3))
    assert torch.equal(two[:1], uniforms(Sampling(1, 1.0, seed=5), ["a"], 3))
    assert len(set(two.flatten().tolist())) == 12
    assert torch.equal(two[:, :2], uniforms(Sampling(2, 1.0, seed=5), ["a", "b"], 2))


def test_the_edges_of_the_unit_interval_draw_possible_tokens():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]]).expand(3, -1)
    assert draw(logits, 1.0, torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)).tolist() == [1, 3, 3]


def test_the_majority_decides_and_the_first_of_a_tie():
    def samples(*letters: str | None) -> list[Sample]:
        return [Sample(f"{n}", RIGHT if x == "B" else WRONG if x else UNREAD, x, 1) for n, x in enumerate(letters)]  # type: ignore[arg-type]

    assert majority(samples("A", "B", "B")).output == "1"
    assert majority(samples("A", "B", "B", "A")).output == "0"
    assert majority(samples(None, None, "C")).output == "2"  # what cannot be read has no vote
    assert majority(samples(None, None)).output == "0"


@pytest.mark.slow
def test_a_run_with_samples_prints_both_and_keeps_them(settings, capsys):
    run_settings = settings(samples=3)
    infer(run_settings)
    file = read_results(run_settings.output_path)
    assert (file.manifest["samples"], file.manifest["temperature"], file.manifest["seed_used"]) == (3, 1.0, 0)
    assert all(len(result.samples or ()) == 3 for result in file.results)
    assert all(result.tokens == sum(sample.tokens for sample in result.samples or ()) for result in file.results)
    out = capsys.readouterr().out.splitlines()
    assert out[1].startswith("majority vote of 3 samples; pass@1 0.")
    assert "pass@3 0." in out[1]
    with pytest.raises(UserError, match="temperature"):
        infer(settings(samples=3, temperature=0.5))
    with pytest.raises(UserError, match="seed_used"):
        infer(settings(samples=3, seed=1))
    with pytest.raises(UserError, match="3 times the same completion"):
        settings(samples=3, temperature=0.0)
