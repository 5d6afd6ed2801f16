"""Answers that say the same, and answers that differ in what matters: side, denial, number, unit."""

import pytest

from open_r1.grading.free.same_answer import is_any, same_answer, singular

SAME = [
    *[
        ("yes", "Yes."),
        ("是的", "yes"),
        ("没有", "No"),
        ("MRI", "mri"),
        ("the left lung", "Left Lung"),
        ("a mass", "Mass."),
    ],
    *[("in the left lung", "left lung"), ("5 mm", "0.5 cm"), ("5mm", "5 mm"), ("0.5cm", "5 mm"), ("two", "2")],
    *[("2.0", "2"), ("lungs", "Lung"), ("Lung, Spinal Cord", "spinal cord, lung"), ("T2-weighted", "t2 weighted")],
    *[
        ("Spinal cord and lung", "Lung, Spinal Cord"),
        ("no evidence of effusion", "no effusion"),
        ("MRI scan", "MRI"),
        ("x-ray", "X ray"),
    ],
    *[("without effusion", "no effusion"), ("left-sided", "left"), ("left side", "left"), ("xray", "X-Ray")],
    *[
        ("chest x-rays", "chest xray"),
        ("4th ventricle", "fourth ventricle"),
        ("1,000 ml", "1 l"),
        ("50%", "50 percent"),
    ],
    *[("2.5cm x 1.7cm x 1.6cm", "2.5 x 1.7 x 1.6 cm"), ("2.5 × 1.7 cm", "25 mm x 17 mm"), ("masses", "mass")],  # noqa: RUF001
    *[("Crohn's disease", "crohn disease"), ("2,5 cm", "25 mm"), ("bilateral", "both sides"), ("-5 mm", "-0.5 cm")],
    *[
        ("**Left**", "left"),
        ("two weeks", "14 days"),
        ("metastases", "metastasis"),
        ("左肺", "左肺。"),
        ("twenty", "20"),
    ],
    *[("\\boxed{left}", "left"), ("right and left", "left and right"), ("Vertebrae", "vertebra"), ("1, 2", "2 and 1")],
    *[
        ("biopsies", "biopsy"),
        ("first rib", "1st rib"),
        ("five millimetres", "5 mm"),
        (".5 cm", "5 mm"),
        ("(MRI)", "MRI"),
    ],
]
DIFFERENT = [
    *[("left", "right"), ("no effusion", "effusion"), ("not effusion", "effusion"), ("5 mm", "5 cm"), ("5", "5 mm")],
    *[("-5 mm", "5 mm"), ("2", "3"), ("left lung", "lung"), ("left lung", "right lung"), ("both", "left")],
    *[("bilateral", "right"), ("upper", "lower"), ("2-3", "23"), (">5 mm", "5 mm"), ("yes", "no"), ("有", "没有")],
    *[("mass", "left masses"), ("", "x"), ("heart and lung", "heart"), ("absent", "present"), ("T1", "T2")],
    *[("no mass and effusion", "no effusion and mass"), ("grade 2", "grade 3"), ("2 x 3 cm", "3 x 2 cm")],
    *[
        ("0.5 cm", "5 cm"),
        ("1.5", "15"),
        ("左肺", "右肺"),
        ("non-contrast", "contrast"),
        ("without contrast", "contrast"),
    ],
    *[("4th ventricle", "4 ventricle"), ("negative", "positive"), ("normal", "abnormal"), ("5 mm", "5 mg")],
    *[
        ("one month", "one year"),
        ("lung", "lingula"),
        ("two masses", "mass"),
        ("1,2,3", "123"),
        ("no", "none"),
        ("bone scan", "bone"),
    ],
    *[("left upper lobe", "left lower lobe"), ("never seen", "seen"), ("pneumonia", "pneumonitis"), ("", "")],
]


@pytest.mark.parametrize(("answer", "reference"), SAME)
def test_these_say_the_same(answer: str, reference: str) -> None:
    assert same_answer(answer, reference)
    assert same_answer(reference, answer)


@pytest.mark.parametrize(("answer", "reference"), DIFFERENT)
def test_these_do_not(answer: str, reference: str) -> None:
    assert not same_answer(answer, reference)
    assert not same_answer(reference, answer)


def test_an_alias_is_as_good_as_the_answer() -> None:
    assert is_any("CT", ["computed tomography", "ct"])
    assert not is_any("PET", ["computed tomography", "ct"])


@pytest.mark.parametrize("word", ["mass", "pelvis", "thorax", "pus", "gas", "diagnosis", "chorda", "ct", "is"])
def test_a_singular_stays(word: str) -> None:
    assert singular(word) == word


def test_numbers_of_any_length_are_compared() -> None:
    assert same_answer("9" * 10_000, "9" * 10_000)
    assert not same_answer("9" * 10_000, "9" * 9_999 + "8")
    assert same_answer("x " * 20_000, "x " * 20_000)
