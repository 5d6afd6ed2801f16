"""Permuted options keep their meaning: those that speak of others stay where they are."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from open_r1.data.text.prepare import write_set
from open_r1.data.text.questions import TextQuestion
from open_r1.evaluation.answering.perturbations import View, count_fixed, shuffle_options
from open_r1.evaluation.answering.run import infer
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.evaluation.scoring.results import read_results
from open_r1.grading.option_references import fixed_options
from open_r1.grading.problems import options_in, render_lines, render_problem
from open_r1_testbed.tiny_models import build_tiny_checkpoint

PLAIN = ("liver", "spleen", "kidney")

SPEAK_OF_THE_REST = (
    *(
        "None of the above",
        "none of these.",
        "All of the above",
        "All of these",
        "ALL OF THE  ABOVE",
        "Any of the above",
    ),
    *("Both of the above", "Both of these", "Neither of these", "None of the above is correct", "All are true", "All"),
    *("None", "Either of these", "More than one of the above", "Two of the other options", "All the above", "Others"),
    *("All of the options", "None of the other choices", "None are correct", "All above", "Any of them", "Not listed"),
    *("none of the above, as the main aim is another", "Neither", "All of the following", "Both", "Not given"),
)
NAME_OTHERS = (
    *("Both A and B", "A and C", "A & B", "A, B and C", "A, B, C", "a and b", "Only A", "B only", "Neither A nor B"),
    *(
        "Either B or C",
        "All except C",
        "All but A",
        "1 and 2 only",
        "1, 2 and 3",
        "1 & 3",
        "2 only",
        "I and II",
        "II only",
    ),
    *("i, ii and iii", "Both A and B are correct", "A and B are correct", "A is correct, but not option B", "A+B"),
    *(
        "Options A and C",
        "Both (A) and (B)",
        "(A) and (C)",
        "See A) above",
        "Same as B",
        "Answer C is right",
        "1,2 & 3",
    ),
    *(
        "None except B",
        "both a & c",
        "The former",
        "Only the latter",
        "The first two",
        "Only the first option",
        "B",
        "c",
    ),
)
SPEAK_OF_THEMSELVES = (
    *(
        "Vitamin A",
        "Hepatitis A and B",
        "AB",
        "Type A blood",
        "1",
        "1.5",
        "10 and 12",
        "1/2",
        "12, 15",
        "Vitamin D only",
    ),
    *(
        "Allograft",
        "Both kidneys",
        "None-small-cell carcinoma",
        "Neither kidney",
        "Above the diaphragm",
        "All-trans acid",
    ),
    *(
        "No abnormality",
        "The first two weeks",
        "First premolar",
        "A single dose",
        "IV",
        "37.2 (98.9 F)",
        "B cells",
    ),
    *("The following day", "Both lungs and the liver", "All ribs", "A large effusion", "Grade 1 and grade 2", "X-Ray"),
    *("Any previous operation", "One litre", "I.V. fluids", "Some improvement", "Three months", "Most proximal"),
)


def letters_fixed(*texts: str, question: str = "Which organ is shown?") -> str:
    return "".join(sorted(fixed_options(question, dict(zip("ABCDEFGHIJ", texts, strict=False)))))


@pytest.mark.parametrize("text", SPEAK_OF_THE_REST)
def test_what_speaks_of_the_rest_keeps_its_place(text: str) -> None:
    assert letters_fixed(*PLAIN, text) == "D"


@pytest.mark.parametrize("text", NAME_OTHERS)
def test_what_names_others_keeps_the_order(text: str) -> None:
    assert letters_fixed(*PLAIN, text) == letters_fixed(text, *PLAIN) == "ABCD"


@pytest.mark.parametrize("text", SPEAK_OF_THEMSELVES)
def test_what_speaks_of_itself_moves(text: str) -> None:
    assert letters_fixed(*PLAIN, text) == ""


def test_above_holds_only_for_what_stands_above() -> None:
    assert letters_fixed("liver", "spleen", "All of the above", "None of the above") == "CD"
    assert letters_fixed("liver", "spleen", "All of the above", "kidney") == "ABCD"
    assert letters_fixed("liver", "spleen", "All of these", "kidney") == "C"
    assert letters_fixed("liver", "None of these") == "AB"  # the one that is left has nowhere to go
    assert letters_fixed("liver", "A and F", "spleen") == ""  # F is not offered: groups, not options


@pytest.mark.parametrize(
    "question",
    ["Is it A) or B)?", "Which of options A and B is safer?", "Choose answer (C) unless it is old.", "Both A and B?"],
)
def test_a_question_that_names_letters_keeps_its_order(question: str) -> None:
    assert letters_fixed(*PLAIN, question=question) == "ABC"


def test_options_that_are_letters_keep_their_order() -> None:
    assert letters_fixed("a", "bc", "ad", "ac") == "ABCD"  # MedMCQA's way to combine statements of the question
    assert letters_fixed("A", "B", "E", "G") == "ABCD"  # lines of a figure; "A) B" would be read both ways
    assert letters_fixed("bad", "ab", "O", "AB negative") == ""


@pytest.mark.parametrize("question", ["At 37.2 (99 F) and (36.7 deg C)?", "Vitamin B and Hepatitis A?", "Is it Rh(D)?"])
def test_letters_that_are_no_options_change_nothing(question: str) -> None:
    assert letters_fixed(*PLAIN, "lung", question=question) == ""


@pytest.mark.parametrize("write", [render_problem, render_lines])
def test_the_others_move_around_what_stays(write) -> None:
    problem = write("Which organ is shown?", ["liver", "spleen", "All of these", "kidney", "None of these"])
    orders = Counter()
    for seed in range(60):
        shuffled = shuffle_options(problem, "q", seed)
        offered = options_in(shuffled.problem)
        assert (offered["C"], offered["E"], shuffled.fixed) == ("All of these", "None of these", {"C", "E"})
        assert {shuffled.letters[letter]: text for letter, text in offered.items()} == options_in(problem)
        orders["".join(shuffled.letters.values())] += 1
    assert len(orders) == 6  # 3! of liver, spleen, kidney
    named = write("Which is it?", ["liver", "spleen", "Both A and B", "kidney"])
    assert {shuffle_options(named, "q", seed).problem for seed in range(60)} == {named}


@pytest.mark.slow
def test_an_evaluation_counts_and_says_what_stayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def settings(name: str, **changes: Any) -> InferenceSettings:
        output = str(tmp_path / f"{name}.jsonl")
        return InferenceSettings(str(model), str(tmp_path / "set"), output, device="cpu", max_new_tokens=2, **changes)

    model = build_tiny_checkpoint(tmp_path / "tiny", "qwen2")
    texts = [
        ["liver", "spleen", "lung", option] for option in ("kidney", "None of these", "All of the above", "A and B")
    ]
    questions = [TextQuestion("Which?", tuple(options), "A", "Hand-written") for options in texts]
    write_set(tmp_path / "set", {"test": questions}, {}, {}, {})
    run_settings = settings("shuffled", options="shuffled")
    infer(run_settings)
    manifest = read_results(run_settings.output_path).manifest
    assert (manifest["options_some_fixed"], manifest["options_all_fixed"]) == (2, 1)
    assert "in 2 of 4 questions" in capsys.readouterr().err
    plain = settings("plain")
    infer(plain)
    assert not {"options_some_fixed", "options_all_fixed"} & read_results(plain.output_path).manifest.keys()


def test_shares_in_published_questions(real_dir: Path) -> None:
    """Looked through by hand; 12 of these 198 have options such as "bc" and "acd", which combine statements."""
    lines = (real_dir / "medqa_usmle" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    problems = [render_lines(row["question"], list(row["options"].values())) for row in map(json.loads, lines)]
    assert len(problems) == 198
    rows = [{"id": str(number), "problem": problem} for number, problem in enumerate(problems)]
    assert count_fixed(View(options="shuffled"), rows) == {"options_some_fixed": 7, "options_all_fixed": 14}
