"""Published sets that training and evaluation read as they are, with `--columns`: real rows, where they are here."""

import re
from collections import Counter
from pathlib import Path

import pytest

from open_r1.common.errors import UserError
from open_r1.data.loading import load_rows
from open_r1.data.row_images import row_images

HUB = {"problem": "question", "solution": "answer"}
FILES = HUB | {"images": "image_name", "id": "qid"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def forms(real_dir: Path) -> Path:
    return real_dir / "forms"


@pytest.mark.parametrize("split", ["train", "test"])
def test_vqa_rad_as_the_hub_has_it(forms: Path, split: str) -> None:
    rows, dropped = load_rows(forms / "vqa_rad_hub", split, columns=HUB)
    assert (Counter(rows["answer_type"]), dropped) == (Counter(closed=5, open=3), [])
    assert all(len(row_images(dict(row))) == 1 for row in rows)
    assert len(set(rows["id"])) == 8


def test_vqa_rads_own_file_beside_its_images(forms: Path) -> None:
    folder = forms / "vqa_rad"
    rows, dropped = load_rows(folder / "VQA_RAD Dataset Public.json", None, folder / "VQA_RAD Image Folder", FILES)
    # 60 rows, of which 18 show images that are not in the sample; none is lost for `CLOSED ` or a number as an answer
    assert (len(rows), Counter(row.reason for row in dropped)) == (42, Counter(missing=18))
    assert set(rows["answer_type"]) == {"closed", "open"}


def test_a_set_with_a_column_for_each_image_is_to_be_prepared(forms: Path) -> None:
    with pytest.raises(UserError, match=r"7 columns hold images \(image_1, .*scripts/prepare_vqa.py makes one column"):
        load_rows(forms / "mmmu_pro_hub", "test", columns=HUB)


def test_the_blind_floor_of_a_set_without_options(forms: Path, load_script, capsys, monkeypatch) -> None:
    main = load_script("eval/blind.py").main
    names = "problem=question,solution=answer"
    monkeypatch.setattr("sys.argv", ["blind.py", "--data", str(forms / "vqa_rad_hub"), "--columns", names])
    assert main() == 0
    printed = capsys.readouterr().out
    assert "8 test questions, guessed from 8 training questions" in printed
    assert re.search(r"closed questions, most frequent answer +\d+\.\d\d %  \(5 questions\)", printed)
    assert "blind floor" not in printed  # there are no options to guess by
