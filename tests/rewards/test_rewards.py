"""Rewards by hand, in the forms in which TRL calls them."""

import pytest
from completions import TABLE

from open_r1.common.errors import UserError
from open_r1.grading.grader import Outcome, grade
from open_r1.grading.problems import options_in
from open_r1.rewards.accuracy import accuracy_reward
from open_r1.rewards.registry import REWARDS, rewards_for
from open_r1.rewards.settings import completion_text
from open_r1.rewards.tags import format_reward
from open_r1.vocabulary.modes import Mode

PROBLEM = "What is it? A)CT, B)Chest X-ray, C)Pneumonia, D)Normal"
SOLUTION = "<answer> C </answer>"

# completion, accuracy, format in think / nothink / think_after
BY_HAND = [
    ("<think>Opaque.</think><answer>C</answer>", 1.0, (1.0, 0.0, 0.0)),
    ("<think>Opaque.</think><answer>D</answer>", 0.0, (1.0, 0.0, 0.0)),
    ("<answer>C</answer>", 1.0, (0.0, 1.0, 0.0)),
    ("<answer> c) pneumonia </answer>", 1.0, (0.0, 1.0, 0.0)),
    ("<answer>A</answer>", 0.0, (0.0, 1.0, 0.0)),
    ("<answer>C</answer><think>Opaque.</think>", 1.0, (0.0, 0.0, 1.0)),
    ("<answer>A</answer><answer>C</answer>", 1.0, (0.0, 0.0, 0.0)),
    ("The answer is C.", 1.0, (0.0, 0.0, 0.0)),
    ("<think>The answer is C.</think>", 0.0, (0.0, 0.0, 0.0)),
    ("A chest film.", 0.0, (0.0, 0.0, 0.0)),
    ("", 0.0, (0.0, 0.0, 0.0)),
]


@pytest.mark.parametrize(("text", "accuracy", "form"), BY_HAND)
def test_rewards_by_hand(text, accuracy, form):
    assert accuracy_reward([text], problem=[PROBLEM], solution=[SOLUTION]) == [accuracy]
    assert tuple(format_reward(mode)([text])[0] for mode in Mode if mode.is_trained) == form


@pytest.mark.slow
def test_the_reward_is_the_grader_on_every_labelled_completion():
    for outcome, _, text, gold, options in TABLE:
        problem = "Which? " + ", ".join(f"{letter}){option}" for letter, option in options.items())
        earned = accuracy_reward([text], [problem], [f"<answer> {gold} </answer>"])
        assert earned == [float(outcome == Outcome.CORRECT)]
        assert grade(text, gold, options_in(problem)).outcome == outcome


def test_a_batch_of_groups_is_judged_row_by_row():
    """Two prompts with two completions each, as TRL passes them, with columns that nobody asked for."""
    other_problem = "Which? A)left, B)right"
    earned = accuracy_reward(
        prompts=["p"] * 4,
        completions=["<answer>C</answer>", "<answer>A</answer>", "<answer>C</answer>", "<answer>A</answer>"],
        problem=[PROBLEM, PROBLEM, other_problem, other_problem],
        solution=[SOLUTION, SOLUTION, "<answer> A </answer>", "<answer> A </answer>"],
        completion_ids=[[1]] * 4,
        trainer_state=None,
    )
    assert earned == [1.0, 0.0, 0.0, 1.0]


def test_conversational_completions_earn_what_their_text_earns():
    text = "<answer>C</answer>"
    turn = [{"role": "assistant", "content": text}]
    blocks = [{"role": "assistant", "content": [{"type": "text", "text": text}]}]
    assert [completion_text(form) for form in (text, turn, blocks, [])] == [text, text, text, ""]
    assert accuracy_reward([turn, blocks, []], [PROBLEM] * 3, [SOLUTION] * 3) == [1.0, 1.0, 0.0]
    assert format_reward(Mode.NOTHINK)([turn, blocks, []]) == [1.0, 1.0, 0.0]


def test_columns_of_unequal_length_are_our_own_error():
    with pytest.raises(ValueError, match="zip"):
        accuracy_reward(["a", "b"], [PROBLEM], [SOLUTION])


def test_rewards_are_selected_by_name_in_the_order_named():
    chosen = rewards_for(["format", "accuracy"], Mode.THINK)
    assert [reward.__name__ for reward in chosen] == ["format_reward", "accuracy_reward"]
    text = "<think>Opaque.</think><answer>C</answer>"
    assert [reward([text], problem=[PROBLEM], solution=[SOLUTION]) for reward in chosen] == [[1.0], [1.0]]
    nothink = rewards_for(["format"], Mode.NOTHINK)[0]
    assert nothink([text], problem=[PROBLEM], solution=[SOLUTION]) == [0.0]
    assert {"accuracy", "format"} < set(REWARDS)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["acuracy"], "no reward 'acuracy'; choose from accuracy, format"),
        ([], "no reward is named"),
        (["format", "format"], "named twice"),
    ],
)
def test_bad_reward_names_are_refused(names, message):
    with pytest.raises(UserError, match=message):
        rewards_for(names, Mode.THINK)
