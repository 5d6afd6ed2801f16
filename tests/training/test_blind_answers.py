"""What the model in training would answer without the image: exact, once per question, and in the reward's column."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from tiny_trainers import make_trainer

from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.common.errors import UserError
from open_r1.evaluation.answering.encoder import Encoder
from open_r1.evaluation.answering.perturbations import View
from open_r1.modeling.segment_attention import prepare_model
from open_r1.rewards.looking import COLUMN
from open_r1.training.command_line.grpo_config import GRPOTrainingConfig
from open_r1.training.grpo import blind_answers
from open_r1.training.grpo.blind_answers import BlindAnswers
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import build_messages
from open_r1_testbed.tiny_models import build_tiny_checkpoint

FAMILIES = ("qwen2_5_vl", "qwen2_vl", "qwen3_vl")
PROBLEMS = ["Which organ? A)liver, B)kidney, C)spleen", "Is the lesion on the left side? A)yes, B)no"]
OPENING = "<answer>"


class Alone:
    """Stands for accelerate in one process."""

    def autocast(self) -> Any:
        return torch.autocast("cpu", enabled=False)

    def unwrap_model(self, model: Any) -> Any:
        return model


def row(problem: str, mode: Mode, images: int = 1, **columns: Any) -> dict[str, Any]:
    return {"problem": problem, "prompt": build_messages(problem, mode, images), **columns}


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_checkpoint(tmp_path_factory.mktemp(request.param), request.param)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [Mode.NOTHINK, Mode.THINK_AFTER])
def test_they_are_those_of_a_plain_pass_over_the_prompt_of_a_blind_evaluation(checkpoint: Path, mode: Mode) -> None:
    processor: Any = load_processor(checkpoint)
    plain_model, model = (load_model(checkpoint, dtype=torch.float32) for _ in range(2))
    prepare_model(model)
    rows = [row(problem, mode) for problem in PROBLEMS]
    letters = BlindAnswers(processor, mode).letters(rows, model, Alone())
    blind = Encoder(processor, mode, view=View(image="none"))
    for question, by_letter in zip(rows, letters, strict=True):
        assert by_letter is not None
        text = blind.render(question, question["problem"], 0) + OPENING
        scores = {}
        for letter in by_letter:
            tokens = torch.tensor([processor.tokenizer(text + letter, add_special_tokens=False)["input_ids"]])
            with torch.no_grad():
                logits: Any = plain_model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
            scores[letter] = logits[0, -2].log_softmax(-1)[tokens[0, -1]]  # the tiny vocabulary's letters are tokens
        expected = torch.stack(list(scores.values())).softmax(0)
        assert list(by_letter.values()) == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize("space", ["", " ", "\n"])
def test_the_letter_is_expected_where_the_completions_write_it(checkpoint: Path, space: str) -> None:
    processor: Any = load_processor(checkpoint)
    blind = BlindAnswers(processor, Mode.NOTHINK)
    rows = [row(problem, Mode.NOTHINK) for problem in PROBLEMS]
    completions = [f"<answer>{space}A</answer>", "nothing", "<answer> A </answer>", f"<answer>{space}B</answer>"]
    texts: list[str] = []

    def watched(tokenizer: Any, given: list[str], letters: Any) -> Any:
        texts.extend(given)
        return letter_tokens(tokenizer, given, letters)

    letter_tokens = blind_answers.letter_tokens
    with patch.object(blind_answers, "letter_tokens", watched):
        model = load_model(checkpoint, dtype=torch.float32)
        with_column = blind.add_to([rows[0]] * 2 + [rows[1]] * 2, completions, 2, model, Alone())
    assert [text.rpartition("<answer>")[2] for text in texts] == [space, space]
    assert with_column[0][COLUMN] == with_column[1][COLUMN] != with_column[2][COLUMN]


def test_answers_that_follow_from_thoughts_are_refused(checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r"mode think .* --mode nothink or think_after"):
        BlindAnswers(load_processor(checkpoint), Mode.THINK)


def test_questions_without_an_image_or_a_choice_have_none(checkpoint: Path) -> None:
    rows = [
        row(PROBLEMS[0], Mode.NOTHINK, images=0),
        row("What is shown?", Mode.NOTHINK, answer_type="open"),
        row(PROBLEMS[1], Mode.NOTHINK, answer_type="choice"),
    ]
    blind = BlindAnswers(load_processor(checkpoint), Mode.NOTHINK)
    first, second, third = blind.letters(rows, load_model(checkpoint, dtype=torch.float32), Alone())
    assert (first, second) == (None, None)
    assert third is not None
    assert sorted(third) == ["A", "B"]


@pytest.mark.slow
@pytest.mark.parametrize("shared_prefix", [True, False])
def test_the_trainer_asks_once_per_question_and_hands_them_to_the_rewards(
    checkpoint: Path, tmp_path: Path, shared_prefix: bool
) -> None:
    received: list[Any] = []

    def reward(completions: list[Any], **columns: Any) -> list[float]:
        received.extend(columns[COLUMN])
        return [float(len(completion[0]["content"])) for completion in completions]

    trainer = make_trainer(checkpoint, tmp_path, [0, 1], reward=reward, shared_prefix=shared_prefix)
    trainer.blind_answers = BlindAnswers(trainer.processing_class, Mode.NOTHINK)
    passes: list[int] = []

    def counted(model: Any, contexts: Any, *others: Any) -> Any:
        passes.append(len(contexts))
        return letters_after(model, contexts, *others)

    letters_after = blind_answers.letters_after
    with patch.object(blind_answers, "letters_after", counted):
        trainer.train()
    assert passes == [2], "one pass, a row per question"
    assert [sorted(letters) for letters in received] == [list("ABCD")] * 3 + [list("AB")] * 3
    assert all(sum(letters.values()) == pytest.approx(1) for letters in received)


def test_the_size_of_a_reward_is_not_divided_away(tmp_path: Path) -> None:
    by_default = GRPOTrainingConfig(output_dir=str(tmp_path))
    assert by_default.scale_rewards == "group"
    note = by_default.keep_sizes_of_rewards("looking")
    assert by_default.scale_rewards == "none"
    assert note is not None
    assert "--scale_rewards none" in note
    by_batch = GRPOTrainingConfig(output_dir=str(tmp_path), scale_rewards="batch")
    assert by_batch.keep_sizes_of_rewards("looking") is None
    assert by_batch.scale_rewards == "batch"
    with pytest.raises(UserError, match=r"--scale_rewards group .* looking"):
        GRPOTrainingConfig(output_dir=str(tmp_path), scale_rewards="group").keep_sizes_of_rewards("looking")
