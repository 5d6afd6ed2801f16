"""Rows, completions, files and flags that nobody would think of: results or one line, the same every time.

Hypothesis draws small cases and shrinks what fails (a fixed seed: the same cases in every run); `scripts/fuzz.py`
damages whole files, here some hundred of the 20,000 that it is made for.
"""

import json
import string
from pathlib import Path
from typing import Any

import pytest
from drawn_values import completions, few, json_values, option_lists, quick, refusal, texts
from hypothesis import example, given, settings
from hypothesis import strategies as st

from open_r1.common.errors import UnusableInput, UserError
from open_r1.data.omnimedvqa.source import Question, read_release
from open_r1.data.omnimedvqa.splits import draw_per_image, draw_per_question
from open_r1.data.rows import check_row
from open_r1.grading.formats import FORMS, follows_format
from open_r1.grading.grader import Outcome, grade
from open_r1.grading.huatuo import match_choice
from open_r1.grading.problems import LETTERS, options_in, render_lines, render_problem
from open_r1.rewards.registry import REWARDS
from open_r1.rewards.settings import RewardSettings
from open_r1.training.command_line.parsing import parse
from open_r1.vocabulary.modes import Mode

# ------------------------------------------------------------------------------------------------- questions


@pytest.mark.slow
@quick
@given(texts, option_lists)
def test_a_rendered_problem_reads_back_or_is_refused(question: str, options: list[str]) -> None:
    for render, read in ((render_problem, str.strip), (render_lines, lambda text: " ".join(text.split()))):
        try:
            problem = render(question, options)
        except UserError:
            continue
        assert list(options_in(problem).values()) == [read(option) for option in options]


@quick
@given(texts)
def test_options_are_consecutive_letters_or_there_are_none(problem: str) -> None:
    try:
        options = options_in(problem)
    except UserError:
        return
    assert "".join(options) == LETTERS[: len(options)]
    assert len(options) >= 2


# ----------------------------------------------------------------------------------------------- completions


@pytest.mark.slow
@settings(quick, max_examples=400)
@given(completions, option_lists, st.integers(0, 5))
def test_a_grade_is_an_offered_letter_or_unparsed_and_always_the_same(text: str, options: list[str], gold: int) -> None:
    offered = dict(zip(LETTERS, options, strict=False))
    solution = f"<answer> {LETTERS[gold]} </answer>"
    first = grade(text, solution, offered)
    assert first == grade(text, solution, dict(offered))
    if first.outcome is Outcome.UNPARSED:
        assert first.letter is None
    else:
        assert first.letter in offered
        assert (first.outcome is Outcome.CORRECT) == (first.letter == LETTERS[gold])
    match = match_choice(text, offered)
    assert {match.first.upper(), match.last.upper()} <= set("ABCDEFGHIJKLMN")  # the lenient one always finds one


@quick
@given(st.sampled_from("ABC"), st.sampled_from(["", "<think>no, {}</think>", "<think>it is D or A"]))
def test_a_plain_answer_is_read_whatever_the_thoughts_say(letter: str, thoughts: str) -> None:
    closed = thoughts if thoughts.endswith("</think>") or not thoughts else thoughts + "</think>"
    text = f"{closed.replace('{}', 'A')}<answer>{letter}</answer>"
    assert grade(text, letter, {"A": "x", "B": "y", "C": "z"}) == (Outcome.CORRECT, letter)


CHOICE_ROW = {
    "problem": ["Is it? A)x, B)y"],
    "solution": ["<answer> B </answer>"],
    "completion_ids": [[1, 2, 3]],
    "letters_without_image": [{"A": 0.4, "B": 0.6}],
}
OPEN_ROW = {"problem": ["Is it?"], "solution": ["yes"], "answer_type": ["closed"]}
OF_TEXTS = ("closed", "exact", "token_f1", "rouge_l")


@pytest.mark.slow
@quick
@given(completions)
def test_every_reward_pays_a_finite_number_and_the_same_again(text: str) -> None:
    for mode in FORMS:
        for name in REWARDS.keys() - {"judge"}:  # which asks a server
            reward = REWARDS[name](mode, RewardSettings(), 100)
            row = OPEN_ROW if name in OF_TEXTS else CHOICE_ROW
            (paid,) = reward([text], **row)
            assert -10 <= paid <= 10, name
            assert reward([text], **row) == [paid], name
            assert reward([[{"role": "assistant", "content": text}]], **row) == [paid], name
    assert [follows_format(text, mode) for mode in Mode] == [follows_format(text, mode) for mode in Mode]


# --------------------------------------------------------------------------------------------- rows and files


@pytest.mark.slow
@quick
@given(json_values)
def test_any_value_is_a_row_or_is_refused_with_a_reason(value: Any) -> None:
    try:
        image, problem, solution = check_row(value)
    except UnusableInput as error:
        refused = error
    else:
        refused = None
        assert all(isinstance(text, str) for text in (image, problem, solution))
    assert refused is None or (refused.reason and len(str(refused)) < 1000)


rows = st.fixed_dictionaries(
    {"question_type": st.sampled_from(["Modality Recognition", "x", 3, None]) | json_values},
    optional={
        "modality_type": st.sampled_from(["CT(Computed Tomography)", "y"]) | json_values,
        "question": texts | json_values,
        "gt_answer": st.sampled_from(["CT", "MRI"]) | json_values,
        "image_path": st.sampled_from(["Images/a.png", "../x"]) | json_values,
        "option_A": st.just("CT") | json_values,
        "option_B": st.just("MRI") | json_values,
        "dataset": texts | json_values,
    },
)


@pytest.mark.slow
@quick
@given(st.lists(rows | json_values, max_size=4))
@example(
    [{"dataset": "\ud800", "gt_answer": "a", "option_A": "a", "option_B": "b", "question": "?", "image_path": "x"}]
)
def test_any_release_row_is_dropped_or_its_texts_can_be_stored(tmp_path: Path, values: list[Any]) -> None:
    folder = tmp_path / "QA_information" / "Open-access"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "x.json").write_text(json.dumps(values), encoding="utf-8")
    entries = list(read_release(tmp_path))
    assert len(entries) == len(values)
    for entry in entries:
        if isinstance(entry, Question):
            "".join((entry.image, entry.problem, entry.solution, entry.source)).encode()


# ------------------------------------------------------------------------------------------------------- splits


@pytest.mark.slow
@quick
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=60),
    st.integers(0, 5),
)
def test_draws_are_reproducible_and_keep_what_they_promise(drawn: list[tuple[int, int, int]], seed: int) -> None:
    cells, images = [(modality, task) for modality, task, _ in drawn], [image for *_, image in drawn]
    numbers = [hash(("question", place)) % 2**64 for place in range(len(drawn))]
    for draw, identity in ((draw_per_question, numbers), (draw_per_image, images)):
        sides = draw(cells, identity, seed)  # type: ignore[operator]
        assert len(sides) == len(drawn)
        assert set(sides) <= {0, 1}
        assert bytes(sides) == bytes(draw(cells, identity, seed))  # type: ignore[operator]
    by_image = draw_per_image(cells, images, seed)
    assert all(len({by_image[k] for k, drawn_name in enumerate(images) if drawn_name == name}) == 1 for name in images)


# ------------------------------------------------------------------------------------------------------- flags

REQUIRED = ["--model_name_or_path", "m", "--dataset_name", "d", "--output_dir", "o"]
FLAGS = (
    *("--mode", "--max_prompt_length", "--overlong_prompts", "--reward_funcs", "--num_generations", "--beta", "--seed"),
    *("--curriculum", "--hard_fraction", "--difficulty", "--learning_rate", "--lr_scheduler_type", "--bf16", "--optim"),
    *("--deepspeed", "--accelerator_config", "--report_to", "--save_strategy", "--cosine_max_len", "--nonsense", "--x"),
)
words = (
    st.sampled_from(["0", "-1", "1e999", "nan", "x", "[", "{}", "true", "think", "2", "no", "none", "../x", ""]) | texts
)


@pytest.mark.slow
@few
@given(st.lists(st.tuples(st.sampled_from(FLAGS), st.lists(words, max_size=2)), max_size=4))
def test_any_flags_are_settings_or_one_line(tmp_path: Path, drawn: list[tuple[str, list[str]]]) -> None:
    arguments = [*REQUIRED, *(word for flag, values in drawn for word in (flag, *values))]
    parses_or_refuses(["--output_dir" if argument in ("--help", "-h") else argument for argument in arguments])


def parses_or_refuses(arguments: list[str]) -> str:
    return refusal(lambda: parse(arguments))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "message_part"),
    [
        (b"!!python/object/apply:os.system ['touch %s']", "could not determine a constructor for the tag"),
        (b"beta: !!python/name:os.system", "could not determine a constructor for the tag"),
        (b"beta: !!python/object/new:subprocess.Popen [['touch', '%s']]", "could not determine a constructor"),
        (b"a: [", "while parsing a flow node"),
        (b"\t", "cannot start any token"),
        (b"[" * 20_000, "RecursionError"),
        (b"5: 6", "keywords must be strings"),
        (b"\xff\xfe\0", "codec can't decode"),
        (b"- a", "must contain a YAML mapping"),
        (b"nonsense: 1", "nonsense"),
    ],
)
def test_a_recipe_runs_no_code_and_what_it_cannot_mean_is_one_line(
    tmp_path: Path, content: bytes, message_part: str
) -> None:
    path, touched = tmp_path / "recipe.yaml", tmp_path / "touched"
    path.write_bytes(content.replace(b"%s", str(touched).encode()))
    message = parses_or_refuses([*REQUIRED, "--config", str(path)])
    assert message_part in message
    assert "\n" not in message
    assert not touched.exists()


@pytest.mark.slow
@few
@given(st.text(string.printable, max_size=60))
def test_any_text_is_a_recipe_or_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    assert "\n" not in parses_or_refuses([*REQUIRED, "--config", str(tmp_path / "recipe.yaml")])
