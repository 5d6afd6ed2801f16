"""The published lenient matching by hand, its guesses and oddities included."""

import pytest

from open_r1.grading.huatuo import How, Judged, Score, match_choice, scores

OPTIONS = {"A": "Iron deficiency", "B": "Folate deficiency", "C": "Lead", "D": "Thalassaemia"}

BY_HAND = [
    # text, first, last, how
    ("The answer is B.", "B", "B", How.CLAIM),
    ("The answer is A. No: the answer is C.", "A", "C", How.CLAIM),
    ("answer is   D", "D", "D", How.CLAIM),
    ("The answer is Not clear", "N", "N", How.CLAIM),  # any letter up to N, offered or not, whole word or not
    ("Let me see, answer is B\n\n## Final Response\n\nI say (C).", "C", "C", How.LETTER),
    ("(B)", "B", "B", How.LETTER),
    ("B", "B", "B", How.LETTER),
    ("<think>C or B?</think><answer>D</answer>", "C", "D", How.LETTER),  # thoughts count
    ("A or C", "C", "C", How.LETTER),  # an A before a space is taken for the article
    ("vitamin C deficiency", "C", "C", How.LETTER),
    ("选B。", "B", "B", How.LETTER),
    ("I choose B, then C.", "B", "C", How.LETTER),
    ("B C", "B", "B", How.LETTER),  # the space is used up by the first match
    ("A fever", "C", "C", How.SIMILAR),
    ("**D** is right", "D", "D", How.LETTER),
    ("Vitamin E, option Z", "C", "C", How.SIMILAR),
    ("It is lead.", "C", "C", How.TEXT),
    # text rule: both occur, lead at 0, thalassaemia at 9, then lead again: "first" is the one whose first place is last
    ("lead and thalassaemia, so lead", "D", "C", How.TEXT),
    ("iron deficienc", "A", "A", How.SIMILAR),
]


@pytest.mark.parametrize(("text", "first", "last", "how"), BY_HAND)
def test_matching_by_hand(text, first, last, how):
    assert match_choice(text, OPTIONS)[2] is how
    if how is not How.SIMILAR or text == "iron deficienc":
        assert match_choice(text, OPTIONS)[:2] == (first, last)


def test_only_as_many_letters_as_there_are_options_stand_alone():
    assert match_choice("(C)", {"A": "x", "B": "y"}).how is not How.LETTER
    assert match_choice("(C)", {"A": "x", "B": "y", "C": "z"}) == ("C", "C", How.LETTER)


def test_it_guesses_where_nothing_is_said_and_the_last_of_equals_wins():
    assert match_choice("", {"A": "x", "B": "y", "C": "z"}) == ("C", "C", How.SIMILAR)


def test_per_source_the_better_match_counts():
    answered = [
        Judged("MedQA", "The answer is A. The answer is B.", "B", OPTIONS),
        Judged("MedQA", "The answer is C. The answer is D.", "D", OPTIONS),
        Judged("MedQA", "The answer is A. The answer is B.", "A", OPTIONS),
        Judged("GPQA", "(A) and not (B)", "A", OPTIONS),
        Judged("GPQA", "It is lead.", "C", OPTIONS),
    ]
    score_by_source = scores(answered)
    # MedQA: the first match is right once, the last twice; GPQA: first twice (A; lead), last once
    assert score_by_source == {"MedQA": Score(3, 1, 2, 0), "GPQA": Score(2, 2, 1, 1)}
    assert score_by_source["MedQA"].best == pytest.approx(2 / 3)
    assert score_by_source["GPQA"].best == 1.0
