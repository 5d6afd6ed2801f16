"""What preparation refuses: settings, inputs and sets that make no sense, before any work."""

import os
import shutil
from pathlib import Path

import pytest
from vqa_sets import image_bytes, prepared, rad_folder, rad_row, reasons, rows_of, write

from open_r1.common.errors import UserError
from open_r1.data.arrow_sets import FEATURES, write_dict, write_split
from open_r1.data.preparation.encoded_images import BoundedEncoding
from open_r1.data.vqa.prepare import VqaPreparation
from open_r1.data.vqa.report import report_lines


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """VQA-RAD with 24 train and 4 test questions on 26 images."""
    rows = [rad_row(number) for number in range(24)]
    tests = [rad_row(number, phrase_type="test_freeform", answer="No") for number in (22, 23, 24, 25)]
    return rad_folder(tmp_path / "in", [*rows, *tests])


def test_a_set_without_keys_is_compared_by_its_stored_images(folder: Path, tmp_path: Path) -> None:
    (data_set,) = prepared("vqa_rad", folder, tmp_path / "out")
    row = rows_of(data_set, "test")[0]
    published = {"image": row["images"][0], **dict.fromkeys(("source", "modality", "task"), "x")}
    published |= {"problem": row["problem"], "solution": row["solution"], "id": "1"}
    text = {**published, "image": None, "id": "2"}
    older = tmp_path / "older"
    write_split(older / "train", [published, text], FEATURES, "train")
    write_dict(older, ["train"])
    (compared,) = prepared("vqa_rad", folder, tmp_path / "out", against=(older, data_set.folder))
    assert compared.against.keys() == {str(older)}  # a set is not compared with itself
    overlap = compared.against[str(older)]["train -> test"]
    assert (overlap["images"], overlap["by_file"], overlap["same_question"]) == (1, 0, 1)
    assert compared.against[str(older)]["train -> train"]["images"] == 1  # test shows an image of train
    lines = "\n".join(report_lines([compared]))
    assert f"{older} is compared by stored images alone" in lines
    assert f"{older} train -> test: 1 of 4 images (25.0 %), shown by 1 of 4 questions; 1 are the same" in lines


@pytest.mark.parametrize("content", [None, {"manifest.json": "{}", "keys.json": "{"}, {"dataset_dict.json": "[]"}])
def test_what_is_no_prepared_set_is_refused_before_the_work(
    folder: Path, tmp_path: Path, content: dict[str, str] | None
) -> None:
    other = tmp_path / "other"
    if content is not None:
        other.mkdir()
        for name, text in content.items():
            (other / name).write_text(text)
    with pytest.raises(UserError, match=r"--against .*other"):
        prepared("vqa_rad", folder, tmp_path / "out", against=(other,))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_train_can_leave_out_what_later_splits_and_other_sets_test_on(folder: Path, tmp_path: Path) -> None:
    other = rad_folder(tmp_path / "other", [rad_row(n, phrase_type="test_para") for n in (0, 1, 24)])
    (tested,) = prepared("vqa_rad", other, tmp_path / "other out")
    (plain,) = prepared("vqa_rad", folder, tmp_path / "plain")
    (clean,) = prepared("vqa_rad", folder, tmp_path / "clean", drop_leaks=True)
    (cleaner,) = prepared("vqa_rad", folder, tmp_path / "cleaner", drop_leaks=True, against=(tested.folder,))
    assert [len(rows_of(data_set, "train")) for data_set in (plain, clean, cleaner)] == [24, 22, 20]
    assert all(rows_of(data_set, "test") == rows_of(plain, "test") for data_set in (clean, cleaner))
    assert [row for row in rows_of(plain, "train") if row in rows_of(clean, "train")] == rows_of(clean, "train")
    assert clean.report["overlaps"]["train -> test"]["images"] == 0
    assert cleaner.against[str(tested.folder)]["test -> train"]["images"] == 0
    assert "  train: 4 questions were left out for images that something is tested on" in report_lines([cleaner])
    with pytest.raises(UserError, match=r"held out \(was .*--overwrite builds it anew"):
        prepared("vqa_rad", folder, tmp_path / "clean", drop_leaks=True, against=(tested.folder,))


def test_a_train_split_of_leaks_alone_is_refused(tmp_path: Path) -> None:
    folder = rad_folder(tmp_path / "in", [rad_row(1), rad_row(1, phrase_type="test_para")])
    with pytest.raises(UserError, match="every train question shows an image of a later split"):
        prepared("vqa_rad", folder, tmp_path / "out", drop_leaks=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "vqa_rat"}, r"SOURCE vqa_rat is not known \(did you mean vqa_rad\?\); choose one of vqa_rad"),
        ({"source": "x"}, r"SOURCE x is not known; choose one of vqa_rad, slake"),
        ({"inputs": ()}, "--input is missing"),
        ({"image_root": Path("/nowhere")}, "--image_root /nowhere is not a folder"),
        ({"num_workers": 0}, "--num_workers 0"),
        ({"limit": 0}, "--limit 0 leaves no question"),
        ({"against": (Path("/nowhere"),)}, "--against /nowhere is not a folder"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        VqaPreparation(**{"source": "vqa_rad", "inputs": ("x",), "output_dir": tmp_path, **options})


@pytest.mark.parametrize(
    ("text", "name"),
    [("VQA-RAD", "vqa_rad"), ("Slake", "slake"), ("MedXpertQA", "medxpertqa_mm"), ("mmmu_pro", "mmmu_pro")],
)
def test_sources_in_other_spellings(tmp_path: Path, text: str, name: str) -> None:
    assert VqaPreparation(text, ("x",), tmp_path).source == name


@pytest.mark.parametrize(("side", "form"), [(27, "PNG"), (8001, "PNG"), (64, "GIF")])
def test_encodings_that_make_no_sense_are_refused(side: int, form: str) -> None:
    with pytest.raises(UserError, match=r"--max_side|--format"):
        BoundedEncoding(side, form)


def test_inputs_that_are_not_there_or_do_not_belong_together(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="gone is not there"):
        prepared("vqa_rad", tmp_path / "gone", out)
    with pytest.raises(UserError, match=r"--only en: VQA-RAD as OSF publishes it has no parts"):
        prepared("vqa_rad", folder, out, only=("en",))
    with pytest.raises(UserError, match="takes one folder or several files"):
        prepared("vqa_rad", [str(folder), str(folder / "VQA_RAD Dataset Public.json")], out)
    with pytest.raises(UserError, match=r"holds no file of SLAKE. Expected are SLAKE's JSON: train.json"):
        prepared("slake", folder, out)
    copy = tmp_path / "train.json"
    shutil.copy(folder / "VQA_RAD Dataset Public.json", copy)
    with pytest.raises(UserError, match=r"train.json is not SLAKE: its rows are VQA-RAD as OSF.*prepare it as vqa_rad"):
        prepared("slake", [str(copy)], out)
    with pytest.raises(UserError, match="are both the whole of VQA-RAD"):
        prepared("vqa_rad", [str(copy), str(folder / "VQA_RAD Dataset Public.json")], out)
    strange = write(tmp_path / "strange.json", [{"a": 1}])
    with pytest.raises(UserError, match=r"is no file of VQA-RAD: its rows have a; VQA-RAD as OSF publishes it has"):
        prepared("vqa_rad", [str(strange)], out)
    strange.write_text("{ not json")
    with pytest.raises(UserError, match="is no file of VQA-RAD: it has no rows"):
        prepared("vqa_rad", [str(strange)], out)
    assert not out.exists()


def test_without_images_the_folder_is_asked_for(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder / "VQA_RAD Image Folder")
    with pytest.raises(UserError, match=r"none of the 26 images of VQA-RAD.*give the folder that holds them as --i"):
        prepared("vqa_rad", folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_split_without_images_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    for number in (22, 23, 24, 25):
        (folder / f"VQA_RAD Image Folder/synpic{number}.jpg").write_text("no image")
    with pytest.raises(UserError, match=r"vqa_rad: no test question has images that can be used"):
        prepared("vqa_rad", folder, tmp_path / "out")


def test_links_out_of_the_root_and_bad_images_cost_their_questions(folder: Path, tmp_path: Path) -> None:
    images = folder / "VQA_RAD Image Folder"
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(image_bytes("secret"))
    for number in (0, 1, 2, 3):
        (images / f"synpic{number}.jpg").unlink()
    (images / "synpic0.jpg").symlink_to(secret)
    (images / "synpic1.jpg").write_bytes(b"")
    (images / "synpic2.jpg").write_bytes(image_bytes("a", form="JPEG")[:200])
    os.mkfifo(images / "synpic3.jpg")
    (data_set,) = prepared("vqa_rad", folder, tmp_path / "out")
    assert reasons(data_set) == {"outside-root": 1, "empty": 1, "not-an-image": 1, "not-a-file": 1}
    assert len(rows_of(data_set, "train")) == 20
