"""The rewards of open-medical-r1 by hand: values, arithmetic, and what earns nothing."""

import math

import pytest

from open_r1.common.errors import UserError
from open_r1.grading.problems import render_lines
from open_r1.rewards.accuracy import medical_accuracy_reward
from open_r1.rewards.registry import PUBLISHED, rewards_for
from open_r1.rewards.settings import RewardSettings
from open_r1.rewards.shaping import cosine_reward, reasoning_steps_reward, repetition_reward
from open_r1.rewards.tags import soft_format_reward, strict_format_reward, tag_count_reward
from open_r1.vocabulary.modes import Mode

OPTIONS = ["Vitamin B12 deficiency", "Iron deficiency", "Vitamin B", "C. difficile"]
PROBLEM = render_lines("Which?", OPTIONS)


def earned(text: str, letter: str) -> float | None:
    return medical_accuracy_reward([text], [PROBLEM], [f"<answer> {letter} </answer>"])[0]


@pytest.mark.parametrize(
    ("block", "gold", "reward"),
    [
        ("B", "B", 2.0),
        ("(B)", "B", 2.0),
        ("\nB\n", "B", 2.0),
        ("B) Iron deficiency", "B", 2.0),
        ("The answer is B.", "B", 2.0),
        ("Iron deficiency", "B", 1.0),
        ("iron deficiency.", "B", 1.0),
        ("Iron deficiency, since ferritin is low", "B", 1.0),
        ("Iron deficiency (B)", "B", 1.0),
        ("A", "B", 0.0),
        ("B or C", "B", 0.0),
        ("", "B", 0.0),
        # the text of A begins with that of C, and means A
        ("Vitamin B12 deficiency", "A", 1.0),
        ("Vitamin B12 deficiency", "C", 0.0),
        ("Vitamin B", "C", 1.0),
        # "C. difficile" is D, whatever its first letter
        ("C. difficile", "D", 1.0),
        ("C. difficile", "C", 0.0),
        ("Iron deficiency anaemia of pregnancy", "B", 1.0),
        ("Iron deficiencyanaemia", "B", 0.0),
    ],
)
def test_accuracy_is_2_for_the_letter_and_1_for_the_text(block, gold, reward):
    assert earned(f"<think>so</think><answer>{block}</answer>", gold) == reward


def test_accuracy_needs_an_answer_block_and_takes_the_last_one():
    assert earned("The answer is B.", "B") == 0.0
    assert earned("<think><answer>B</answer></think>", "B") == 0.0
    assert earned("<answer>B</answer><answer>A</answer>", "B") == 0.0
    assert earned("<answer>A</answer><answer>B</answer>", "B") == 2.0


LINES = "<think>\nso\n</think>\n<answer>\nB\n</answer>"
PLAIN = "<think>so</think> <answer>B</answer>"
# completion, soft, strict, tags in think mode
FORMS = [
    (LINES, 1.0, 1.0, 1.0),
    (LINES + "\n", 1.0, 1.0, 1.0),
    (PLAIN, 1.0, 0.0, 1.0),
    ("Well. " + PLAIN + " Done.", 1.0, 0.0, 1.0),
    ("Well. " + LINES, 1.0, 0.0, 1.0),
    ("<think>so</think> hence <answer>B</answer>", 0.0, 0.0, 1.0),
    ("<answer>B</answer><think>so</think>", 0.0, 0.0, 1.0),
    (PLAIN + "<answer>C</answer>", 0.0, 0.0, 0.5),  # two of four tags stand once: 2 x 0.25
    ("<think>so</think><answer>B", 0.0, 0.0, 0.75),  # 3 x 0.25
    ("<answer>B</answer>", 0.0, 0.0, 0.5),
    ("B", 0.0, 0.0, 0.0),
]


@pytest.mark.parametrize(("text", "soft", "strict", "tags"), FORMS)
def test_format_pays_1_and_1_and_a_quarter_per_tag(text, soft, strict, tags):
    assert soft_format_reward(Mode.THINK)([text]) == [soft]
    assert strict_format_reward(Mode.THINK)([text]) == [strict]
    assert tag_count_reward(Mode.THINK)([text]) == [tags]


def test_the_form_follows_the_mode():
    text = "<answer>\nB\n</answer>"
    modes = [mode for mode in Mode if mode.is_trained]
    assert [soft_format_reward(mode)([text])[0] for mode in modes] == [0.0, 1.0, 0.0]
    assert [strict_format_reward(mode)([text])[0] for mode in modes] == [0.0, 1.0, 0.0]
    assert [tag_count_reward(mode)([text])[0] for mode in modes] == [0.5, 1.0, 0.5]
    after = "<answer>\nB\n</answer>\n<think>\nso\n</think>"
    assert strict_format_reward(Mode.THINK_AFTER)([after]) == [1.0]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", 0),
        ("It is iron.", 0),
        ("First, look. Then stop.", 1),
        ("1. look\n2. think", 2),
        ("Step 1: look\nStep 2: think\nStep 3: say", 3),
        ("First, a\n- b\n* c\nFinally, d", 4),
        ("The 2. rib", 0),
    ],
)
def test_three_marks_of_a_step_earn_everything(text, steps):
    assert reasoning_steps_reward([text]) == [min(1.0, steps / 3)]


def cosine(text: str, tokens: int, settings: RewardSettings, longest: int | None = None) -> float:
    reward = cosine_reward(settings, longest)
    return reward([text], problem=[PROBLEM], solution=["B"], completion_ids=[[7] * tokens])[0]


def test_cosine_falls_with_length_from_1_to_a_half_and_from_0_to_minus_a_half():
    right, wrong, by_100 = "<answer>B</answer>", "<answer>A</answer>", RewardSettings(cosine_max_len=100)
    # 0.5 + (1 - 0.5) * (1 + cos 0) / 2 = 1
    assert cosine(right, 0, by_100) == 1.0
    # 0.5 + 0.5 * (1 + cos(pi / 2)) / 2 = 0.75
    assert cosine(right, 50, by_100) == pytest.approx(0.75)
    # 0.5 + 0.5 * (1 + cos(pi / 4)) / 2 = 0.5 + 0.25 * 1.70711 = 0.92678
    assert cosine(right, 25, by_100) == pytest.approx(0.92678, abs=1e-5)
    assert cosine(right, 100, by_100) == pytest.approx(0.5)
    assert cosine(right, 150, by_100) == pytest.approx(0.5)  # not 0.75 again
    # -0.5 + (0 + 0.5) * (1 + cos 0) / 2 = 0, half-way -0.25, in the end -0.5
    assert [cosine(wrong, n, by_100) for n in (0, 50, 100)] == pytest.approx([0.0, -0.25, -0.5])
    assert cosine("no answer", 100, by_100) == pytest.approx(-0.5)


def test_cosine_scales_by_the_longest_completion_unless_a_length_is_set():
    text = "<answer>B</answer>"
    assert cosine(text, 100, RewardSettings(), 200) == pytest.approx(0.75)
    assert cosine(text, 100, RewardSettings(cosine_max_len=100), 200) == pytest.approx(0.5)
    settings = RewardSettings(cosine_max_len=10, cosine_max_value_correct=4.0, cosine_min_value_correct=2.0)
    # 2 + (4 - 2) * (1 + cos(pi * 5 / 10)) / 2 = 3
    assert cosine(text, 5, settings) == pytest.approx(3.0)


def test_repetition_costs_the_share_of_runs_that_are_not_new():
    penalty = repetition_reward(RewardSettings())
    # "a b a b a b": runs aba bab aba bab, 2 of 4 distinct: -1 * (1 - 2 / 4) = -0.5
    assert penalty(["a b a b A B"]) == [-0.5]
    # six times the same word: 4 runs, 1 distinct: -0.75
    assert penalty(["no no no no no no"]) == [-0.75]
    assert penalty(["all words differ here", "two words", ""]) == [0.0, 0.0, 0.0]
    by_two = repetition_reward(RewardSettings(repetition_n_grams=2, repetition_max_penalty=-2.0))
    # "x y x y": runs xy yx xy, 2 of 3 distinct: -2 * 1 / 3
    assert by_two(["x y x y"]) == pytest.approx([-2 / 3])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (RewardSettings(cosine_max_len=0), "cosine_max_len 0"),
        (RewardSettings(repetition_n_grams=0), "repetition_n_grams 0"),
        (RewardSettings(repetition_max_penalty=0.5), "would reward repetition"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        rewards_for(["cosine", "repetition"], Mode.THINK, settings)


def test_the_published_set_pays_5_at_most_and_leaves_cosine_and_steps_out():
    rewards = rewards_for(PUBLISHED, Mode.THINK)
    columns = {"problem": [PROBLEM], "solution": ["B"], "completion_ids": [[1]]}
    # 2 + 1 + 1 + 4 x 0.25 = 5
    assert [reward([LINES], **columns)[0] for reward in rewards] == [2.0, 1.0, 1.0, 1.0]
    assert [reward.__name__ for reward in rewards] == [f"{name}_reward" for name in PUBLISHED]
    assert not {"cosine", "reasoning_steps"} & set(PUBLISHED)


def test_every_reward_reads_conversations_and_survives_hostile_text():
    names = ["medical_accuracy", "soft_format", "strict_format", "tag_count", "reasoning_steps", "cosine", "repetition"]
    hostile = ["<answer>" * 3000, "<think>" * 3000 + "</think>", "\n-" * 5000, "\x00", "a " * 5000]
    turns = [[{"role": "assistant", "content": text}] for text in hostile]
    n = len(hostile)
    columns = {"problem": [PROBLEM] * n, "solution": ["B"] * n, "completion_ids": [[1] * 5] * n}
    for reward in rewards_for(names, Mode.THINK, max_completion_length=64):
        values = reward(turns, **columns)
        assert values == reward(hostile, **columns)
        assert all(math.isfinite(value) for value in values)
