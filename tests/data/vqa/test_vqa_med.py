"""VQA-Med 2019: alternatives, optional parts, categories, and the overlap with VQA-RAD."""

import json
from pathlib import Path

import pytest
from vqa_sets import draw, prepared, rad_folder, rad_row, reasons, rows_of, write

from open_r1.common.errors import UserError
from open_r1.data.preparation.encoded_images import BoundedEncoding
from open_r1.data.vqa.readers.vqa_med import alternatives

TEST = "VQAMed2019Test/VQAMed2019_Test_Questions_w_Ref_Answers.txt"
TRAIN = "ImageClef-2019-VQA-Med-Training"


def write_lines(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))  # the published files end without a line break
    return path


@pytest.mark.parametrize(
    ("answer", "has_optional_parts", "expected"),
    [
        ("gastrointestinal#lung, mediastinum, pleura", False, ["gastrointestinal", "lung, mediastinum, pleura"]),
        ("ct w/contrast (iv)", False, ["ct w/contrast (iv)"]),
        ("mr - adc map (app diff coeff)", False, ["mr - adc map (app diff coeff)"]),
        (
            "(staging burkitt) lymphoma",
            True,
            ["(staging burkitt) lymphoma", "lymphoma", "staging burkitt lymphoma"],
        ),
        ("medulloblastoma (pnet)", True, ["medulloblastoma (pnet)", "medulloblastoma", "medulloblastoma pnet"]),
        ("a (b)#c", True, ["a (b)", "c", "a", "a b"]),
        ("(all of it)", True, ["(all of it)", "all of it"]),
        ("plain", True, ["plain"]),
        ("#x#", False, ["x"]),
    ],
)
def test_alternatives_and_optional_parts(answer: str, has_optional_parts: bool, expected: list[str]) -> None:
    assert alternatives(answer, has_optional_parts) == expected


def test_the_tasks_own_files(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_lines(
        folder / TEST,
        "synpic1|modality|what modality is shown?|ct w/contrast (iv)",
        "synpic2|abnormality|what is abnormal?|(seronegative) spondylarthropathies#arthritis",
        "synpic2|abnormality|is it normal?|no",
        "synpic2|plane|what|plane|is it?",
        "",
        "synpic3|organ",
    )
    write_lines(
        folder / TRAIN / "All_QA_Pairs_train.txt", "synpic4|what is seen?|mass (large)", "synpic4|what?|ct (iv)"
    )
    write_lines(folder / TRAIN / "QAPairsByCategory/C4_Abnormality_train.txt", "synpic4|what is seen?|mass (large)")
    write_lines(folder / TRAIN / "QAPairsByCategory/C1_Modality_train.txt", "synpic4|what?|ct (iv)")
    draw(folder / "VQAMed2019Test/VQAMed2019_Test_Images", ["synpic1", "synpic2"])
    draw(folder / TRAIN / "Train_images", ["synpic4"])
    (data_set,) = prepared("vqa_med_2019", folder, tmp_path / "out")
    named, optional, closed = rows_of(data_set, "test")
    assert (named["solution"], named["aliases"]) == ("ct w/contrast (iv)", [])
    assert (named["answer_type"], named["subject"]) == ("open", "modality")
    assert optional["solution"] == "(seronegative) spondylarthropathies"
    assert optional["aliases"] == ["arthritis", "spondylarthropathies", "seronegative spondylarthropathies"]
    assert closed["answer_type"] == "closed"
    assert reasons(data_set) == {"bad-line": 2}
    assert [(row["subject"], row["aliases"]) for row in rows_of(data_set, "train")] == [
        ("abnormality", ["mass", "mass large"]),
        ("modality", []),
    ]


def test_the_questions_alone_have_no_answers(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "VQAMed2019_Test_Questions.txt", "synpic1|what is it?", "synpic2|what?")
    with pytest.raises(UserError, match="is no file of VQA-Med-2019"):
        prepared("vqa_med_2019", [f"test={path}"], tmp_path / "out")


def test_its_rows_under_mevfs_names_are_read_as_what_they_are(tmp_path: Path) -> None:
    row = {"qid": 1, "image_name": "synpic1.jpg", "question": "what is it?", "phrase_type": "freeform"}
    rows = [{**row, "answer": "cyst (simple)", "answer_type": "OPEN", "question_type": "ABN"}]
    write(tmp_path / "in/testset.json", rows)
    draw(tmp_path / "in/images", ["synpic1.jpg"])
    (data_set,) = prepared("vqa_med_2019", tmp_path / "in", tmp_path / "out")
    (loaded,) = rows_of(data_set, "test")
    assert (loaded["subject"], loaded["aliases"]) == ("abnormality", ["cyst", "cyst simple"])


def test_images_that_vqa_rad_shares_are_counted_whatever_their_stored_size(tmp_path: Path) -> None:
    rad = rad_folder(tmp_path / "rad", [rad_row(1, phrase_type="test_para"), rad_row(2, phrase_type="test_para")])
    (tested,) = prepared("vqa_rad", rad, tmp_path / "out")
    write_lines(tmp_path / "med" / TRAIN / "All_QA_Pairs_train.txt", "synpic1|is there a lesion?|yes", "synpic9|x?|y")
    draw(tmp_path / "med" / TRAIN / "Train_images", ["synpic1.jpg", "synpic9.jpg"])
    trained = {"encoding": BoundedEncoding(28, "JPEG"), "against": (tested.folder,)}
    (data_set,) = prepared("vqa_med_2019", tmp_path / "med", tmp_path / "out", **trained)
    overlap = data_set.against[str(tested.folder)]["test -> train"]
    assert (overlap["images"], overlap["by_file"]) == (1, 1)
    (again,) = prepared("vqa_rad", rad, tmp_path / "out", against=(data_set.folder,))
    overlap = again.against[str(data_set.folder)]["train -> test"]
    assert (overlap["images"], overlap["of_images"], overlap["questions"]) == (1, 2, 1)


# ---------------------------------------------------------------------------------------------- real rows


def test_real_rows_with_drawn_and_with_their_own_images(real_dir: Path, tmp_path: Path) -> None:
    source = real_dir / "forms/vqa_med_2019"
    train = source / TRAIN / "All_QA_Pairs_train.txt"
    names = [line.split("|")[0] for line in train.read_text().splitlines()]
    draw(tmp_path / "images", names)
    files = [str(train)]
    (trained,) = prepared("vqa_med_2019", files, tmp_path / "a", image_root=tmp_path / "images")
    assert len(rows_of(trained, "train")) == len(names)
    (tested,) = prepared("vqa_med_2019", [str(source / TEST)], tmp_path / "b", image_root=source)
    lines = [line.split("|") for line in (source / TEST).read_text().splitlines()]
    images = {path.stem for path in (source / "VQAMed2019Test/VQAMed2019_Test_Images").iterdir()}
    usable = [line for line in lines if line[0] in images]
    rows = rows_of(tested, "test")
    assert [row["solution"] for row in rows] == [line[3].split("#")[0] for line in usable]
    assert reasons(tested) == {"missing": len(lines) - len(usable)}
    organs = next(row for row in rows if row["solution"] == "lung, mediastinum, pleura")
    assert organs["aliases"] == ["spine and contents"]
    assert json.loads((tested.folder / "report.json").read_text()) == tested.report
