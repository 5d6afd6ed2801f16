"""The reward for looking pays what a right answer is worth beyond its probability without the image."""

import pytest

from open_r1.rewards.looking import looking_reward
from open_r1.rewards.registry import rewards_for
from open_r1.vocabulary.modes import Mode

PROBLEM = "Which organ? A)liver, B)kidney, C)spleen"
BLIND = {"A": 0.7, "B": 0.2, "C": 0.1}


@pytest.mark.parametrize(
    ("answer", "solution", "letters", "earned"),
    [
        ("A", "A", BLIND, 0.3),  # what the text alone gives away earns little
        ("C", "C", BLIND, 0.9),
        ("A", "C", BLIND, 0.0),
        ("no idea", "A", BLIND, 0.0),
        ("B", "B", {"A": 0.0, "B": 1.0, "C": 0.0}, 0.0),
        ("A", "A", None, None),  # no image, or no letters
    ],
)
def test_a_right_answer_earns_what_it_is_worth_beyond_the_text(
    answer: str, solution: str, letters: dict[str, float] | None, earned: float | None
) -> None:
    values = looking_reward(
        [f"<answer>{answer}</answer>"], [PROBLEM], [f"<answer> {solution} </answer>"], letters_without_image=[letters]
    )
    assert values == ([None] if earned is None else [pytest.approx(earned)])


def test_it_is_a_reward_by_name_and_trl_logs_it_as_such() -> None:
    [reward] = rewards_for(["looking"], Mode.NOTHINK)
    assert reward.__name__ == "looking_reward"  # type: ignore[attr-defined]
    messages = [[{"role": "assistant", "content": "<answer>B</answer>"}]] * 2
    earned = reward(
        completions=messages,
        problem=[PROBLEM] * 2,
        solution=["<answer> B </answer>"] * 2,
        letters_without_image=[BLIND, {"A": 0.5, "B": 0.5}],
    )
    assert earned == [pytest.approx(0.8), pytest.approx(0.5)]
