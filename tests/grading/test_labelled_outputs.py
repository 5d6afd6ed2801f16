"""Outputs of kinds that models write, as a careful reader reads them, and every way to change one's mind."""

import random
from itertools import product

import pytest
from labelled_outputs import DISEASE, OUTPUTS

from open_r1.grading.grader import Outcome, extract_answer, grade

CLAIMS = (
    *("The answer is A.", "Answer: A", "The correct answer is A) Pneumothorax.", "\\boxed{A}", "**Answer: A**"),
    *("A is the correct answer.", "It should be A.", "Therefore, A.", "A) Pneumothorax, because a line is seen."),
    *("The answer is pneumothorax.", "Option A is correct.", "I choose A."),
)
CHANGES = (
    *("But I now believe it is B.", "Edit: B", "Actually, no: B.", "Edit: b", "EDIT - B)", "No, B!", "Nah. B"),
    *(
        "(changed to B)",
        "I'd now say B",
        "I am switching to B.",
        "My revised pick: (B)",
        "New choice = B",
        "B instead.",
    ),
    *("Going with B after all.", "Hmm... could well be B, yes B.", "B, sorry.", "Ok B.", "Replace A by B.", "B > A"),
    *("Strike that, B.", "Though honestly B.", "Better: B", "Better B.", "A < B", "A no, B yes", "Not A. B."),
    *("not A, but B", "It isn't A, it's B.", "A was premature; B.", "Let me settle on B", "I trust B more than A"),
    *("I'm settling for B) Pleural effusion", "I'd rather pick B than A", "B beats A", "B trumps it.", "B wins."),
    *("B is what I mean.", "B is my pick", "B makes more sense.", "B cannot be excluded.", "B cannot be beaten."),
    *("B is never wrong here.", "One cannot rule out B.", "I can't rule out B.", "I won't exclude B.", "Why not B?"),
    *("I should not have overlooked B.", "Nothing speaks against B.", "Isn't it B?", "Should be B.", "Final: B"),
    *("ultimately, b.", "=> B", "==> (B)", "B", "- B", "* B", "1. B", "> B", "~~A~~ B", "[B]", "{B}", "'B'", '"B"'),
    *("the right one: B", "it reads B", "pleural effusion.", "Edit: pleural effusion", "Edit: Pleural effusion (B)"),
    *("I mean pleural effusion.", "I meant B", "I meant pleural effusion", "typo: B", "oops, I misread; B", "是B"),
    *(
        "non, B",
        "nein B",
        "no es A, es B",
        "нет, B",
        "B が正しい",
        "B? Yes, B.",
        "Double-check: B.",
        "The verdict is B",
    ),
    *("I stand corrected: B", "My vote goes to B", "hence B", "ergo B", "A? No. B", "Not so fast. B explains all."),
    *("B explains more than A.", "B would explain this better.", "B would show exactly this.", "B fits the image."),
    *("B usually looks like this.", "While A is tempting, B is right", "more precisely B", "B rather than A"),
    *("less A than B", "A is less likely than B", "A isn't as good as B", "nothing fits better than B"),
    *("None other than B", "none but B", "anything but A", "A is out", "I withdraw A", "I retract A.", "Not A."),
    *("Scrap A.", "Forget A.", "I no longer think it is A.", "B's right.", "make that b."),
)
EXPLANATIONS = (
    *("B is wrong.", "B and D are incorrect.", "It is not B.", "B would show fluid.", "Options B, C and D are wrong."),
    *("A pleural line is seen.", "This rules out B.", "Neither B nor C fits.", "I see no fluid, so it is not B or C."),
    *("B: incorrect. C: incorrect.", "B is not consistent with the line.", "Vitamin B is not involved.", "B cells."),
    *("It is more likely than B.", "Unlike B, it has a line.", "The left lung is dark.", "C is unlikely, as is seen."),
)


@pytest.mark.slow
def test_no_output_is_read_as_another_letter() -> None:
    read = [(text, label, extract_answer(text, options)) for options, label, text in OUTPUTS]
    assert not [row for row in read if row[2] not in (None, row[1])]


@pytest.mark.slow
def test_no_output_counts_as_correct_that_does_not_give_the_right_letter() -> None:
    for options, label, text in OUTPUTS:
        correct = {gold for gold in options if grade(text, gold, options).outcome is Outcome.CORRECT}
        assert correct <= {label}, text


def test_nearly_all_answers_that_can_be_read_are_read() -> None:
    readable = [(options, label, text) for options, label, text in OUTPUTS if label is not None]
    read = sum(extract_answer(text, options) == label for options, label, text in readable)
    print(f"{read} of {len(readable)} readable outputs are read; {len(OUTPUTS) - len(readable)} give no answer")
    assert read >= 0.97 * len(readable)


def test_the_table_is_large_and_has_no_row_twice() -> None:
    assert len(OUTPUTS) >= 600
    assert len({(str(options), text) for options, _, text in OUTPUTS}) == len(OUTPUTS)
    assert sum(label is None for _, label, _ in OUTPUTS) >= 300


@pytest.mark.slow
@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_never_counts_after_a_change_of_mind(claim: str) -> None:
    for change, space, frame in product(CHANGES, (" ", "\n", "\n\n"), ("{}", "<answer>{}</answer>")):
        text = frame.format(claim + space + change)
        assert extract_answer(text, DISEASE) != "A", text


@pytest.mark.slow
@pytest.mark.parametrize("claim", CLAIMS)
def test_no_words_at_all_keep_a_claim_before_another_letter(claim: str) -> None:
    """Words that no list holds, in any language of these letters, around another option's letter."""
    draw = random.Random(claim)

    def word() -> str:
        return "".join(draw.choices("aeioubdfgklmnprstvz", k=draw.randint(4, 9)))

    for _ in range(500):
        before, after = (" ".join(word() for _ in range(draw.randint(0, 5))) for _ in range(2))
        letter = draw.choice(["B", "(B)", "B)", "option B", "**B**", "B) Pleural effusion", "Pleural effusion (B)"])
        end = draw.choice([".", "!", "", "\n", ";"])
        text = f"{claim}{draw.choice([' ', chr(10)])}{before.capitalize()} {letter} {after}{end}"
        assert extract_answer(text, DISEASE) != "A", text


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_counts_after_words_about_the_other_options(claim: str) -> None:
    for explanation in EXPLANATIONS:
        assert extract_answer(f"{claim.removesuffix('.')}. {explanation}", DISEASE) == "A", explanation
