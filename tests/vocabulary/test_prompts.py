"""The prompts, byte for byte, and what a chat template makes of them."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from open_r1.common.errors import UserError
from open_r1.vocabulary.answer_types import AnswerType
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import (
    NAMED,
    TRAIN,
    build_messages,
    mark_order,
    number_marks,
    plain_marks,
    prompt_name,
    question_text,
    recorded_prompt,
    row_messages,
)

PROBLEM = "What is shown? A)x, B)y (z), C){Question}, D)<image> 50%"  # whose mark stands for no image if there are two

# As published, or for think_after as first released here: a changed byte makes trained checkpoints worse.
PUBLISHED = {
    "train-think": (
        "{Question} Your task: 1. Think through the question step by step, enclose your reasoning process in <think>...</think> tags. 2. Then provide the correct single-letter choice (A, B, C, D,...) inside <answer>...</answer> tags. 3. No extra information or text outside of these tags.",  # noqa: E501
        "7ec67bb2d70eae2d382f92b94e90d080c1f71ebbb43923b5cf516ba4118c8fed",
    ),
    "train-nothink": (
        "{Question} Your task: 1. Provide the correct single-letter choice (A, B, C, D,...) inside <answer>...</answer> tags. 2. No extra information or text outside of this tag.",  # noqa: E501
        "fc685cc8550487cc1e1a07aaffb317d56cf68a5426a2c87e22d843ffce4b0dee",
    ),
    "train-think-after": (
        "{Question} Your task: 1. Provide the correct single-letter choice (A, B, C, D,...) inside <answer>...</answer> tags. 2. Then explain step by step why this choice is correct, enclose your explanation in <think>...</think> tags. 3. No extra information or text outside of these tags.",  # noqa: E501
        "e327b8700ae14be94ea10e17b0e9f7f017076de8d4785c0ff8c3164e1c84822c",
    ),
    "readme": (
        "{Question} First output the thinking process in <think> </think> and final choice (A, B, C, D ...) in <answer> </answer> tags.",  # noqa: E501
        "d07d25f3e66df33cd4ce3f6239ad5cc27fc4ffcdb5e34b294970e1367bf7f970",
    ),
    "direct": (
        "{Question} Answer with the letter of the correct option and nothing else.",
        "76486f4cb2b03322380e5e9071a53a7f7311f8b4905e83c4894d43be722ab862",
    ),
}


def test_prompts_are_pinned_byte_for_byte():
    assert {name: text for name, (text, _) in PUBLISHED.items()} == NAMED
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in NAMED.items()}
    assert digests == {name: digest for name, (_, digest) in PUBLISHED.items()}


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode.is_trained])
def test_evaluation_uses_the_training_prompt_unless_told_otherwise(mode):
    assert NAMED[prompt_name(mode)] == TRAIN[mode]
    assert build_messages(PROBLEM, mode) == build_messages(PROBLEM, mode, prompt=prompt_name(mode))
    assert build_messages(PROBLEM, mode) != build_messages(PROBLEM, mode, prompt="readme")


@pytest.mark.parametrize("name", NAMED)
def test_the_problem_stands_in_the_prompt_as_it_is_in_the_data(name):
    text = question_text(PROBLEM, Mode.THINK, name)
    assert text.startswith(PROBLEM + " ")
    assert text[len(PROBLEM) :] == NAMED[name].removeprefix("{Question}")


def test_one_user_turn_image_first():
    text = PROBLEM + NAMED["train-nothink"].removeprefix("{Question}")
    image, words = {"type": "image"}, {"type": "text", "text": text}
    assert build_messages(PROBLEM, Mode.NOTHINK, 2) == [{"role": "user", "content": [image, image, words]}]
    assert build_messages(PROBLEM, Mode.NOTHINK, images=0) == [{"role": "user", "content": text}]


def test_unknown_prompt_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"'readm'.*train-think, train-nothink, train-think-after, readme"):
        build_messages(PROBLEM, Mode.THINK, prompt="readm")


# ------------------------------------------------------------------------------------- the real chat template


@pytest.fixture(scope="module")
def processor(real_dir: Path) -> Any:
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(real_dir / "qwen2_5_vl_processor")


def expected_turn(text: str, images: int, tokens: int = 1) -> str:
    """The Qwen2.5-VL conversation, written out: its template's own system turn, then ours."""
    image = f"<|vision_start|>{'<|image_pad|>' * tokens}<|vision_end|>" * images
    return (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{image}{text}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def ids(processor: Any, text: str) -> list[int]:
    return processor.tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("images", [0, 1, 3])
def test_rendering_equals_the_chat_template_token_for_token(processor, name, images):
    problem = "What is shown? A)x, B)y (z), C)50%, D)é 肺"
    messages = build_messages(problem, Mode.THINK, images, name)
    text = PUBLISHED[name][0].replace("{Question}", problem)
    rendered = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == expected_turn(text, images)
    assert ids(processor, rendered) == ids(processor, expected_turn(text, images))


def test_the_processor_call_equals_the_written_out_turn_with_an_image(processor):
    from PIL import Image

    problem = "What is shown? A)x, B)y (z), C)50%, D)é 肺"
    image = Image.new("RGB", (384, 384), "gray")
    rendered = processor.apply_chat_template(
        build_messages(problem, Mode.NOTHINK), tokenize=False, add_generation_prompt=True
    )
    actual = processor(text=[rendered], images=[image])["input_ids"][0]
    text = PUBLISHED["train-nothink"][0].replace("{Question}", problem)
    # 384 px / (14 px per patch x 2 merged) = 13.7, rounded to 14 each way: 14 * 14 = 196 tokens
    expected = ids(processor, expected_turn(text, 1, 196))
    assert list(actual) == expected
    assert expected.count(processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")) == 196


def test_special_markup_in_a_problem_is_ordinary_text_to_us(processor):
    problem = "What does <img> show? A)x <b>, B)y {z}"
    rendered = processor.apply_chat_template(build_messages(problem, Mode.NOTHINK), tokenize=False)
    assert f"<|vision_end|>{problem} Your task: 1. Provide" in rendered
    assert rendered.count("<|image_pad|>") == 1


# --------------------------------------------------------------------------------------- images in their places

SHOWN = "<|vision_start|><|image_pad|><|vision_end|>"


@pytest.mark.parametrize(
    "problem",
    ["<image> and <image>? A)x, B)y", "Compare <image>with <image>", "Which? A) <image>, B) <image>", "<image><image>"],
)
def test_images_stand_where_the_marks_are(processor, problem):
    messages = build_messages(problem, Mode.NOTHINK, 2)
    assert [part["type"] for part in messages[0]["content"]].count("image") == 2
    rendered = processor.apply_chat_template(messages, tokenize=False)
    assert f"user\n{problem.replace('<image>', SHOWN)} Your task" in rendered


@pytest.mark.slow
@pytest.mark.parametrize(("problem", "images"), [("<image> Which?", 2), ("Which?", 3)])
def test_images_come_first_where_the_marks_do_not_fit(processor, problem, images):
    rendered = processor.apply_chat_template(build_messages(problem, Mode.NOTHINK, images), tokenize=False)
    assert f"user\n{SHOWN * images}{problem} Your task" in rendered


def test_numbered_marks_keep_their_order_and_are_plain_again():
    problem = "Which? A) <image>, B) <image>, C) <image>"
    assert number_marks(problem) == "Which? A) <image#0>, B) <image#1>, C) <image#2>"
    assert plain_marks(number_marks(problem)) == problem
    assert mark_order("B) <image#2>, A) <image#0>, C) <image#1>") == [2, 0, 1]
    assert number_marks("What does <image> show?") == "What does <image> show?"


# ------------------------------------------------------------------------------------------- other answer types


@pytest.mark.parametrize("answer_type", [AnswerType.CLOSED, AnswerType.OPEN])
@pytest.mark.parametrize("name", NAMED)
def test_a_question_without_letters_is_asked_for_none(name, answer_type):
    text = question_text("Is there an effusion?", Mode.THINK, name, answer_type)
    assert text.startswith("Is there an effusion? ")
    assert "letter" not in text
    assert "A, B, C" not in text
    assert "choice" not in text
    assert "{" not in text
    assert ("<think>" in text, "<answer>" in text) == ("<think>" in NAMED[name], "<answer>" in NAMED[name])


def test_closed_and_open_questions_have_wordings_of_their_own():
    texts = {question_text("Where?", mode, answer_type=kind) for mode in Mode for kind in AnswerType}
    assert len(texts) == len(Mode) * len(AnswerType)


def test_the_record_names_the_wording_of_every_answer_type():
    assert recorded_prompt(Mode.THINK, None, ["choice"] * 3) == ("train-think", TRAIN[Mode.THINK])
    assert recorded_prompt(Mode.THINK, None, []) == ("train-think", TRAIN[Mode.THINK])
    names, texts = recorded_prompt(Mode.NOTHINK, None, ["open", "choice", "closed", "open"])
    assert names == "train-nothink, train-nothink-closed, train-nothink-open"
    assert texts.split("\n")[0] == TRAIN[Mode.NOTHINK]
    assert len(set(texts.split("\n"))) == 3
    assert recorded_prompt(Mode.DIRECT, "readme", ["open"])[0] == "readme-open"


def test_a_row_is_asked_as_its_columns_say():
    row = {"problem": "Is <image> older than <image>?", "images": [{}, {}], "answer_type": "closed"}
    assert row_messages(row, Mode.THINK) == build_messages(row["problem"], Mode.THINK, 2, None, AnswerType.CLOSED)
