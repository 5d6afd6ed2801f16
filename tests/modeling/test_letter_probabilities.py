"""Letters after a text: the token that decides, and the distribution of a plain forward pass."""

from pathlib import Path
from typing import Any

import pytest
import torch
from groups import IDS
from transformers import AutoTokenizer

from open_r1.checkpoints.processors import load_processor
from open_r1.modeling.decoding.letter_probabilities import letter_tokens, letters_after, read_letters
from open_r1_testbed.tiny_models import Shape, build_model, build_tiny_checkpoint

FAMILIES = ("qwen2_5_vl", "qwen2_vl", "qwen3_vl", "qwen2", "llama")
REAL = Path(__file__).resolve().parents[3] / "shared" / "real" / "qwen2_5_vl_processor"
TEXTS = ["Which one? A) up B) down <answer>", "And now? A) x B) y C) z <answer>", "What? A) p B) q <answer>"]
LETTERS = ["AB", "ABC", "AB"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    processor: Any = load_processor(build_tiny_checkpoint(tmp_path_factory.mktemp("tiny")))
    return processor.tokenizer


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_distribution_is_that_of_a_plain_pass_over_the_text_alone(family: str, tokenizer: Any) -> None:
    model: Any = build_model(family, Shape(), len(tokenizer), IDS, seed=0).eval()
    contexts = [context for context in letter_tokens(tokenizer, TEXTS, LETTERS) if context is not None]
    assert len({len(context.context) for context in contexts}) > 1, "padding is not tried"
    for context, result, offered in zip(contexts, letters_after(model, contexts, 0), LETTERS, strict=True):
        with torch.no_grad():
            plain = model(input_ids=torch.tensor([context.context])).logits[0, -1].log_softmax(-1)
        chosen = {letter: plain[context.deciding[letter]].exp().item() for letter in offered}
        assert sum(result.values()) == pytest.approx(1)
        for letter, probability in chosen.items():
            assert result[letter] == pytest.approx(probability / sum(chosen.values()), abs=1e-5)


def test_each_letter_is_decided_by_the_token_that_the_whole_text_has_there(tokenizer: Any) -> None:
    for text, offered, context in zip(TEXTS, LETTERS, letter_tokens(tokenizer, TEXTS, LETTERS), strict=True):
        assert context is not None
        for letter in offered:
            whole = tokenizer(text + letter, add_special_tokens=False)["input_ids"]
            assert whole == [*context.context, context.deciding[letter]]


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real vocabulary is not on this machine")
@pytest.mark.parametrize(("opening", "tokens"), [("<answer>", ">B"), ("<answer> ", "ĠB"), ("<answer>\n", "B")])
def test_qwens_tokenizer_joins_the_letter_with_the_tag(opening: str, tokens: str) -> None:
    real: Any = AutoTokenizer.from_pretrained(REAL)
    [context] = letter_tokens(real, [f"A) up B) down {opening}"], ["ABCD"])
    assert context is not None
    assert real.convert_ids_to_tokens(context.deciding["B"]) == tokens


def test_without_a_choice_there_is_no_distribution(tokenizer: Any) -> None:
    assert letter_tokens(tokenizer, TEXTS[:2], ["", "A"]) == [None, None]
    assert letter_tokens(tokenizer, [], []) == []


def test_letters_that_share_their_first_token_cannot_be_told_apart() -> None:
    def one_token_for_all(texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[7, 1, ord(text[-1])] if text[-1] != "C" else [7, 2, 0] for text in texts]}

    assert letter_tokens(one_token_for_all, ["x"], ["ABC"]) == [None]
    [context] = letter_tokens(one_token_for_all, ["x"], ["AB"])
    assert context is not None
    assert (context.context, context.deciding) == ([7, 1], {"A": ord("A"), "B": ord("B")})


def test_letters_share_what_lies_on_them() -> None:
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]]).log()
    first, second = read_letters(logits, [{"A": 2, "B": 3}, {"A": 1, "B": 2, "C": 3}])
    assert first == pytest.approx({"A": 3 / 7, "B": 4 / 7})
    assert second == pytest.approx({"A": 1 / 3, "B": 1 / 3, "C": 1 / 3})
