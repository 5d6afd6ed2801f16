"""The page of the report in a real browser, and what must hold of its text: nothing from a model becomes markup."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chromium import Page
from PIL import Image
from report_files import images_in, questions_in, write

from open_r1.data.loading import load_rows
from open_r1.data.row_images import image_key
from open_r1.evaluation.reporting.report import write_report
from open_r1.evaluation.scoring.results import Result, graded_result
from open_r1.grading.problems import options_in, solution_letter
from open_r1_testbed.phantoms import make_phantoms, save_prepared

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">{{js}}"


def answered(rows: list[Any], right_every: int, output: str) -> list[Result]:
    """Every `right_every`-th question is answered as the solution says, all others with another letter."""
    results = []
    for number, row in enumerate(rows):
        letters = list(options_in(row["problem"]))
        gold = letters.index(solution_letter(row["solution"]))
        letter = letters[gold if number % right_every == 0 else (gold + 1) % len(letters)]
        results.append(graded_result(row, image_key(row), f"{output} <answer>{letter}</answer>", tokens=9))
    return results


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """80 questions (8 modalities, 5 tasks, 16 images), two runs, hostile texts, training curves."""
    folder = tmp_path_factory.mktemp("report")
    make_phantoms(folder / "phantoms", train=1, test=2)
    data = save_prepared(folder / "phantoms", folder / "prepared")
    rows: list[Any] = list(load_rows(data, "test")[0])
    rows[3]["problem"] = f"{HOSTILE} What? A){HOSTILE}, B)two"
    rows[3]["solution"] = "<answer> B </answer>"
    log = [{"step": step, "reward": step / 10, "completions/mean_length": 50 - step} for step in range(1, 11)]
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    about = {"data": str(data), "split": "test", "run_dir": str(folder), "note": HOSTILE}
    before = write(folder / f"before{HOSTILE.replace('/', '')}.jsonl", answered(rows, 4, HOSTILE), **about)
    after = write(folder / "after.jsonl", answered(rows, 2, "肺 \ud800\x00"), **about)
    write_report([before, after], folder / "out", with_items=True)
    return folder / "out" / "report.html"


# ------------------------------------------------------------------------------------------------ without a browser


@pytest.mark.slow
def test_page_is_one_file_without_addresses(report):
    text = re.sub(r'xmlns(:\w+)?="[^"]*"', "", report.read_text())
    text = re.sub(r'<script type="text/plain".*?</script>', "", text, flags=re.DOTALL)
    named = re.findall(r'(?:src|href)="([^"]*)"', text) + re.findall(r"url\(([^)]*)\)", text)
    assert len(named) > 10
    assert [name for name in named if not name.startswith(("data:", "#"))] == []
    assert "http" not in text.replace("http-equiv", "")


def test_markup_of_models_data_and_file_names_is_text(report):
    text = report.read_text()
    assert text.count("<script") == 4  # index, outputs, images, and the page's own
    assert text.count("</script>") == 4
    assert "innerHTML" not in text
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text  # in names and in the manifest
    assert "script-src 'sha256-" in text


def test_page_holds_every_question_with_its_answers(report):
    questions = questions_in(report)
    assert len(questions) == 80
    question = questions[3]
    assert (question["stem"], question["options"], question["right"]) == (f"{HOSTILE} What?", [HOSTILE, "two"], 1)
    assert question["modality"]
    assert question["task"]
    assert question["image"] >= 0
    assert [answer["read"] for answer in question["answers"]] == ["A", "A"]
    assert question["answers"][0]["texts"][0].startswith(HOSTILE)
    images = [Image.open(io.BytesIO(data)) for data in images_in(report)]
    assert [(image.format, image.size) for image in images] == [("JPEG", (384, 384))] * 16  # there is room for all


def test_a_solution_that_is_no_option_marks_none(tmp_path):
    row = {"id": "1", "problem": "What? A)one, B)two", "solution": "<answer> A </answer>"}
    result = replace(graded_result(row, "p", "<answer>A</answer>", tokens=1), solution="<answer> D </answer>")
    write_report([write(tmp_path / "out.jsonl", [result])], tmp_path / "report", with_items=True)
    question = questions_in(tmp_path / "report" / "report.html")[0]
    assert (question["stem"], question["options"], question["right"]) == ("What?", ["one", "two"], -1)


@pytest.mark.slow
def test_images_that_would_make_the_page_too_large_are_left_out_and_said(tmp_path, report):
    rows = list(load_rows(report.parent.parent / "prepared", "test")[0])
    path = write(
        tmp_path / "a.jsonl", answered(rows, 2, "x"), data=str(report.parent.parent / "prepared"), split="test"
    )
    write_report([path], tmp_path / "out", image_bytes=20_000, with_items=True)
    page = tmp_path / "out" / "report.html"
    images, text = images_in(page), page.read_text()
    image_count = len(images)
    assert 0 < image_count < 16
    assert sum(map(len, images)) <= 20_000 * 3 / 4  # as base64
    assert {max(Image.open(io.BytesIO(data)).size) for data in images} == {160}
    assert f"{image_count} of 16 images are in this page" in text
    assert f"{16 - image_count} left out: more would take over" in text
    # the images of wrong answers come first
    item_images = {item["image"] for item in questions_in(page) if item["answers"][0]["outcome"] == 1}
    assert item_images >= set(range(image_count))


@pytest.mark.slow
def test_page_says_when_the_data_is_not_here_or_not_named(tmp_path, report):
    rows = list(load_rows(report.parent.parent / "prepared", "test")[0])[:3]
    for manifest, message_part in (
        ({"data": "elsewhere/CT_384"}, "data set elsewhere/CT_384 is not on this machine"),
        ({}, "does not say which"),
    ):
        path = write(tmp_path / f"{len(manifest)}.jsonl", answered(rows, 2, "x"), **manifest)
        write_report([path], tmp_path / f"out{len(manifest)}", with_items=True)
        page = tmp_path / f"out{len(manifest)}" / "report.html"
        assert message_part in page.read_text()
        assert images_in(page) == []


def test_long_outputs_are_cut_in_the_page_alone(tmp_path):
    row = {"id": "1", "problem": "What? A)x, B)y", "solution": "A"}
    path = write(tmp_path / "a.jsonl", [graded_result(row, "p", "z" * 50_000 + "<answer>A</answer>", 9)])
    write_report([path], tmp_path / "out", with_items=True)
    output = questions_in(tmp_path / "out" / "report.html")[0]["answers"][0]["texts"][0]
    assert output.startswith("z" * 1500)
    assert "48,018 of 50,018 characters left out" in output
    assert output.endswith("<answer>A</answer>")  # what failed is often at the end
    assert len(output) < 2100
    assert "Outputs are cut" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
def test_forced_scores_mark_the_page_the_summary_and_every_image(tmp_path):
    rows = [{"id": str(k), "problem": "What? A)x, B)y", "solution": "A", "modality": "CT"} for k in range(3)]
    results = [graded_result(row, row["id"], "<answer>A</answer>", 9) for row in rows]
    paths = [
        write(tmp_path / "forced.jsonl", results, forced=True, trained_on="Lesion Grading", tested_on="CT"),
        write(tmp_path / "fair.jsonl", results, trained_on="MRI", tested_on="CT"),
    ]
    summary = write_report(paths, tmp_path / "out", with_items=True)
    assert summary.count("FORCED across split families") >= 4
    page = (tmp_path / "out" / "report.html").read_text()
    assert '<div class="banner">FORCED' in page
    assert "FORCED" in (tmp_path / "out" / "forced" / "heatmap.svg").read_text()
    assert "FORCED" in (tmp_path / "out" / "difference.svg").read_text()
    assert "FORCED" not in (tmp_path / "out" / "fair" / "heatmap.svg").read_text()


# --------------------------------------------------------------------------------------------------- in Chromium


@pytest.mark.slow
def test_tables_heatmaps_and_curves_are_in_the_page(browser, report):
    page = Page(browser, report)
    headings = page.texts("h2")
    assert "Training curves" in headings
    assert page.script("return document.querySelectorAll('svg').length") == 5  # runs, difference, two maps, curves
    assert page.script(
        "return [...document.querySelectorAll('svg')].every((s) => s.getBoundingClientRect().width > 300)"
    )
    assert page.script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert any(text.startswith("reward") for text in page.texts("svg text"))
    assert "Accuracy by modality" in page.texts("figcaption")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_four_checkpoints_fit_a_desktop_and_nothing_but_tables_is_wider_than_a_phone(browser, tmp_path, scheme):
    tasks = ("Disease Diagnosis", "Modality Recognition", "Anatomy Identification")
    paths = []
    for place, name in enumerate(("base", "Qwen2.5-VL-3B-SFT", "Qwen2.5-VL-3B-think", "Qwen2.5-VL-3B-nothink")):
        results = []
        for number in range(120):
            row = {
                "id": str(number),
                "problem": "What? A)x, B)y",
                "solution": "A",
                "modality": "CT",
                "task": tasks[number % 3],
            }
            letter = "A" if number % 10 < 3 + 2 * place else "B"
            result = graded_result(row, f"p{number // 2}", f"<answer>{letter}</answer>", tokens=9)
            results.append(replace(result, blind=0.5))
        about = {"checkpoint_sha256": name, "data_sha256": "d", "data": "data/VQA/CT_384", "max_new_tokens": 256}
        paths.append(write(tmp_path / f"{name}.jsonl", results, **about))
    paths.append(write(tmp_path / "blind.jsonl", results, **about, image="none"))
    write_report(paths, tmp_path / "out")
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
    try:
        for width in (1400, 390):
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            page = Page(browser, tmp_path / "out" / "report.html")
            assert page.script("return document.documentElement.scrollWidth") <= width
            if width == 1400:
                overflow = (
                    "return [...document.querySelectorAll('#part-1 .scroll')].map((s) => s.scrollWidth - s.clientWidth)"
                )
                assert set(page.script(overflow)) == {0}
                lines = (
                    "return [...document.querySelectorAll('.sheet thead')].map((h) => h.getBoundingClientRect().height)"
                )
                assert max(page.script(lines)) < 35  # one line each
        paper, ink = page.script("const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]")
        brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (paper, ink)]
        assert (brightness[0] > brightness[1]) == (scheme == "light")
        assert abs(brightness[0] - brightness[1]) > 450
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
