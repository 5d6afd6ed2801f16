"""Several sets of one checkpoint are one evaluation, and several checkpoints stand in one table."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_tables import table_of

from open_r1.evaluation.answering.run import infer_all
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.evaluation.comparing.scored_runs import load
from open_r1.evaluation.reporting.report import write_report
from open_r1.evaluation.reporting.table_formats import BLANK
from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import Result, Sample, graded_result, read_results
from open_r1.evaluation.scoring.tallies import ALL
from open_r1.vocabulary.labels import Modality, Task
from open_r1_testbed.phantoms import make_phantoms
from open_r1_testbed.tiny_models import TINY_BASE

RIGHT, WRONG, UNREAD = "<answer>A</answer>", "<answer>B</answer>", "Well"


def answers(modality: Modality, right: int, images: int = 8) -> list[Result]:
    """Five questions, one per task, about each image; on the first `right` images all five are answered right."""
    results = []
    for image in range(images):
        for task in Task:
            row = {"id": f"{modality} {image} {task}", "problem": "What? A)x, B)y, C)z, D)w", "solution": "A"}
            row |= {"modality": modality.value, "task": task.value}
            results.append(graded_result(row, f"{modality} {image}", RIGHT if image < right else WRONG, tokens=9))
    return results


def write(path: Path, results: list[Result], **manifest: Any) -> Path:
    with ResultWriter(path, manifest) as writer:
        for result in results:
            writer.write(result)
    return path


def evaluated(folder: Path, right: int, extra_right: int = 0, **about: Any) -> list[Path]:
    """The result files of a checkpoint over the eight sets; on CT it is right on `more` images more."""
    manifest = {"checkpoint": str(folder), "checkpoint_sha256": folder.name, "mode": "nothink", "split": "test"}
    manifest |= {"method": "zero-shot", "max_new_tokens": 64, "rows": 40} | about
    return [
        write(
            folder / f"{label}.jsonl",
            answers(label, right + extra_right * (label is Modality.CT)),
            **(manifest | {"data": f"data/{label}_384", "data_sha256": label.value, "tested_on": label.value}),
        )
        for label in Modality
    ]


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


# ------------------------------------------------------------------------------------------------ one checkpoint


@pytest.mark.slow
def test_eight_sets_of_one_checkpoint_are_one_map_one_table_and_both_means(tmp_path):
    summary = write_report(evaluated(tmp_path / "run", 2, extra_right=4), tmp_path / "out")
    out = tmp_path / "out"
    assert not [path for path in out.iterdir() if path.is_dir()]
    table = rows_of(out / "by_modality_and_task.csv")
    assert len(table) == len(Modality) * len(Task)
    shares = {(row["modality"], row["task"]): row["accuracy"] for row in table}
    assert set(shares) == {(modality.value, task.value) for modality in Modality for task in Task}
    assert {share for (name, _), share in shares.items() if name == "CT"} == {"75.00"}  # 6 of 8 images
    assert {share for (name, _), share in shares.items() if name != "CT"} == {"25.00"}
    svg = (out / "heatmap.svg").read_text()
    assert svg.count(">n = 8<") == 40
    assert (svg.count(">n = 40<"), svg.count(">n = 64<"), svg.count(">n = 320<")) == (8, 5, 1)
    means = {row["average"]: (row["n"], row["accuracy"]) for row in rows_of(out / "averages.csv")}
    assert means == {  # (7 * 25 + 75) / 8
        "all questions, weighted by their number": ("320", "31.25"),
        "unweighted mean over 8 modalities": ("320", "31.25"),
        "unweighted mean over 5 tasks": ("320", "31.25"),
    }
    head, row = table_of(summary, "1 run on " + ", ".join(f"{label}_384" for label in Modality))
    values = dict(zip(head, row, strict=True))
    assert (values["run"], values["accuracy"], values["n"]) == ("run", "31.2 ± 5.8", "320")
    assert values["mean over 8 modalities"].startswith("31.2 ± ")
    assert json.loads((out / "manifest.json").read_text())["results"].keys() == {
        str(tmp_path / "run" / f"{label}.jsonl") for label in Modality
    }
    measured = (out / "summary.md").read_text()
    assert all(f"## How run: {label}_384 was measured" in measured for label in Modality)


@pytest.mark.slow
def test_weighted_and_unweighted_means_differ_where_sets_do(tmp_path):
    paths = evaluated(tmp_path / "run", 2)[:2]
    paths[0].unlink()
    manifest = read_results(paths[1]).manifest
    write(paths[0], answers(Modality.CT, 30, 40), **(manifest | {"data_sha256": "CT", "tested_on": "CT", "rows": 200}))
    write_report(paths, tmp_path / "out")
    means = {row["average"]: row["accuracy"] for row in rows_of(tmp_path / "out" / "averages.csv")}
    # CT 150 of 200, MRI 10 of 40
    assert means["all questions, weighted by their number"] == "66.67"
    assert means["unweighted mean over 2 modalities"] == "50.00"


def test_only_what_one_checkpoint_was_asked_in_one_way_on_other_questions_is_put_together(tmp_path):
    paths = evaluated(tmp_path / "run", 2)
    unlike = {
        "longer": {"max_new_tokens": 256},
        "shuffled": {"options": "shuffled"},
        "half": {"dtype": "bfloat16"},
        "weights": {"checkpoint_sha256": "another"},
        "thinking": {"mode": "think"},
        "train": {"split": "train"},
    }
    for name, entries in unlike.items():
        about = read_results(paths[1]).manifest | entries
        again = [replace(result, id=f"{name} {result.id}") for result in answers(Modality.MRI, 2)]
        path = write(tmp_path / f"{name}.jsonl", again, **about)
        assert len(load([paths[0], path])) == 2, name
    assert len(load(paths[:2])) == 1
    copy = write(tmp_path / "copy.jsonl", answers(Modality.CT, 2), **read_results(paths[0]).manifest)
    assert len(load([paths[0], copy])) == 2  # the same questions twice are no two sets
    limited = read_results(paths[1]).manifest | {"limit": 40, "batch_size": 8, "train_data_sha256": "t"}
    assert len(load([paths[0], write(tmp_path / "limited.jsonl", answers(Modality.MRI, 2), **limited)])) == 1


def test_sets_of_modalities_and_of_tasks_are_two_evaluations(tmp_path):
    paths = evaluated(tmp_path / "run", 2)
    everything = [result for label in Modality for result in answers(label, 2)]
    for task in Task:
        about = read_results(paths[0]).manifest | {"data": f"data/{task}"}
        about |= {"data_sha256": task.value, "tested_on": task.value}
        of_task = [result for result in everything if result.task == task]
        paths.append(write(tmp_path / "run" / f"{task}.jsonl", of_task, **about))
    runs = load(paths)
    assert [(run.name, len(run.files)) for run in runs] == [("run by modality", 8), ("run by task", 5)]
    assert [set(run.parts("modality")) for run in runs] == [set(Modality), set()]
    assert [set(run.parts("task")) for run in runs] == [set(), set(Task)]


def test_sets_that_are_no_modality_have_a_table_of_their_own(tmp_path):
    paths = []
    for number, name in enumerate(("VQA_RAD", "SLAKE"), 1):
        results = answers(Modality.CT, 2 * number)
        results = [replace(result, id=f"{name} {result.id}", modality=None, task=None) for result in results]
        about = {"checkpoint_sha256": "c", "data": f"data/{name}", "data_sha256": name, "split": "test"}
        paths.append(write(tmp_path / f"{name}.jsonl", results, **about))
    summary = write_report(paths, tmp_path / "out")
    assert [(row["set"], row["accuracy"]) for row in rows_of(tmp_path / "out" / "by_set.csv")] == [
        ("VQA_RAD", "25.00"),
        ("SLAKE", "50.00"),
        ("all", "37.50"),
    ]
    assert "unweighted mean over 2 sets" in summary
    assert "mean over 2 sets" in table_of(summary, "1 run on VQA_RAD, SLAKE")[0]


# -------------------------------------------------------------------------------------------- several checkpoints


@pytest.fixture
def four(tmp_path: Path) -> list[list[Path]]:
    """A base that is right on two images of each modality, and three checkpoints: as good, a little, much better."""
    trained = {"method": "grpo", "run_dir": None}
    return [
        evaluated(tmp_path / "base", 2),
        evaluated(tmp_path / "step-100", 2, **trained),
        evaluated(tmp_path / "step-200", 2, extra_right=2, **trained),
        evaluated(tmp_path / "step-300", 4, **trained),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("against", [True, False])
def test_four_checkpoints_stand_in_one_table_at_the_top_with_their_differences(tmp_path, four, against):
    base, *trained = four
    paths_before = [path for paths in trained for path in paths]
    summary = write_report(
        paths_before if against else [*base, *paths_before], tmp_path / "out", against=base if against else []
    )
    sets = ", ".join(f"{label}_384" for label in Modality)
    title = f"4 runs on the same 320 questions: {sets}"
    top = [line for line in summary.splitlines() if line.startswith("#")][:3]
    heading = "# Accuracy of 4 checkpoints on CT_384, MRI_384, X-Ray_384 and 5 more, 320 questions"
    assert top == [heading, "## Runs", f"### {title}"]
    head, *rows = table_of(summary, title)
    table = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}
    assert list(table) == ["step-300", "step-200", "base", "step-100"]
    assert [row["accuracy"].split()[0] for row in table.values()] == ["**50.0", "28.1", "25.0", "25.0"]
    assert {row["guessing"] for row in table.values()} == {"25.0"}
    assert {(row["unparsed"], row["cut off"], row["blind floor"]) for row in table.values()} == {("0.0", "0.0", BLANK)}
    assert all(" to " in row["95 % interval"] or row["95 % interval"] == BLANK for row in table.values())
    # two images with five questions won on CT: too few; then two images more on each modality, 16 of 64: 2 / 2^16,
    # corrected for three runs
    assert [row["p"] for row in table.values()] == ["3.1e-05", "too few", BLANK, "too few"]
    assert [row["p (Holm)"] for row in table.values()] == ["9.2e-05", "too few", BLANK, "too few"]
    assert [row["minus base"].split(" ± ")[0] for row in table.values()] == ["+25.0", "+3.1", BLANK, "+0.0"]
    assert "★" in table["step-300"]["minus base"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.index("<section") < page.index("<svg") < page.index(title) < page.index("</section>")
    lines = rows_of(tmp_path / "out" / "runs.csv")
    assert [(row["run"], row["minus"], row["difference"], row["difference_p"]) for row in lines] == [
        ("step-300", "base", "25.00", "3.05e-05"),
        ("step-200", "base", "3.12", ""),
        ("base", "", "", ""),
        ("step-100", "base", "0.00", ""),
    ]
    assert {(row["number_of_modalities"], row["number_of_tasks"], row["n"]) for row in lines} == {("8", "5", "320")}
    by_modality = table_of(summary, "By modality")
    assert by_modality[0] == ["run", *Modality, "unweighted mean"]
    assert by_modality[2][:3] == ["step-200", "**50.0 ± 18.9**", "25.0 ± 16.4"]
    assert by_modality[2][-1].startswith("28.1 ± ")


@pytest.mark.slow
def test_runs_on_other_questions_do_not_stand_among_those_on_the_same(tmp_path, four):
    base, run_a, run_b, _ = four
    summary = write_report([*base, *run_a, *run_b[:3]], tmp_path / "out")
    assert "### 2 runs on the same 320 questions" in summary
    head, row = table_of(summary, "1 run on CT_384, MRI_384, X-Ray_384")
    assert row[0] == "step-200"
    assert row[head.index("n")] == "120"
    assert row[head.index("minus base")].startswith("+8.3")  # on the 120 that both answered: 10 of them won


@pytest.mark.slow
def test_a_set_that_the_other_was_not_asked_is_named(tmp_path, four):
    base, run_a, *_ = four
    summary = write_report(run_a, tmp_path / "out", against=base[:5])
    assert "over 200 questions" in summary
    assert "Left out, in one file only or not asked: 0 and 120." in summary


@pytest.mark.slow
def test_the_twin_without_images_may_be_over_several_sets_too(tmp_path):
    with_images = evaluated(tmp_path / "shown", 4, checkpoint_sha256="c", checkpoint="c")
    hidden = evaluated(tmp_path / "hidden", 1, checkpoint_sha256="c", checkpoint="c", image="none")
    runs = load([*with_images, *hidden])
    assert [run.name for run in runs] == ["shown", "hidden"]
    twin = runs[0].without_image
    assert twin is not None
    assert twin[ALL, ALL].n == 320
    write_report([*with_images, *hidden], tmp_path / "out")
    assert {row["without_picture"] for row in rows_of(tmp_path / "out" / "shown" / "by_modality.csv")} == {"12.50"}


# ----------------------------------------------------------------------------------------------- the token limit


@pytest.mark.slow
def test_the_share_that_the_token_limit_cut_is_told_or_unknown(tmp_path):
    results = answers(Modality.CT, 4)
    marked = [replace(result, cut_off=int(number % 4 == 0)) for number, result in enumerate(results)]
    old = [replace(result, tokens=64 if number == 5 else 9) for number, result in enumerate(results)]
    for name, lines, limit, share in (
        ("recorded", marked, 64, "25.0"),
        ("older", results, 64, "0.0"),  # all are shorter than the limit
        ("older-full", old, 64, "unknown"),  # one may have ended by itself with its last token
        ("oldest", results, None, "unknown"),
    ):
        about = {"checkpoint_sha256": name} | ({} if limit is None else {"max_new_tokens": limit})
        summary = write_report([write(tmp_path / f"{name}.jsonl", lines, **about)], tmp_path / name)
        head, row = table_of(summary, f"1 run on {name}")
        assert row[head.index("cut off")] == share, name
        (line,) = rows_of(tmp_path / name / "runs.csv")
        assert line["cut_off_share"] == ("" if share == "unknown" else f"{float(share):.2f}"), name
        assert rows_of(tmp_path / name / "by_modality.csv")[0]["cut_off_share"] == line["cut_off_share"]
        assert ("token limit ended." in summary) == (share == "unknown")


def test_of_samples_each_counts_as_a_completion(tmp_path):
    results = []
    for number, result in enumerate(answers(Modality.CT, 4)):
        assert result.outcome is not None
        sample = Sample(result.output, result.outcome, result.letter, 9)
        results.append(replace(result, samples=[sample] * 4, tokens=36, cut_off=number % 2))
    (run,) = load([write(tmp_path / "a.jsonl", results, samples=4)])
    assert run.table[ALL, ALL].cut_off == pytest.approx(1 / 8)


# ------------------------------------------------------------------------------------------------- for real


@pytest.mark.slow
def test_the_commands_make_one_report_of_several_sets(tmp_path, capsys, load_script):
    """eval/infer.py with two sets and two limits, then eval/report.py on all four files."""
    phantoms = make_phantoms(tmp_path / "phantoms", train=1, test=2, modalities=[Modality.CT, Modality.OCT], workers=1)
    rows = json.loads((phantoms / "test.json").read_text())
    sets = []
    for label in (Modality.CT, Modality.OCT):
        path = tmp_path / f"{label}_384.json"
        path.write_text(json.dumps([row for row in rows if row["modality"] == label]))
        sets.append(path)
    shared: dict[str, Any] = {
        "model_path": str(TINY_BASE),
        "image_root": str(phantoms),
        "device": "cpu",
        "mode": "direct",
    }
    files = []
    for limit in (2, 24):
        outputs = [tmp_path / f"limit-{limit}" / f"{path.stem}.jsonl" for path in sets]
        every = [
            InferenceSettings(prompt_path=str(data), output_path=str(file), max_new_tokens=limit, **shared)
            for data, file in zip(sets, outputs, strict=True)
        ]
        assert infer_all(every) == 0
        assert f"python eval/report.py {tmp_path}/limit-{limit}/*.jsonl --output_dir" in capsys.readouterr().out
        files += outputs
    summary = write_report(files, tmp_path / "out")
    head, *table = table_of(summary, "2 runs on the same 20 questions: CT_384.json, OCT_384.json")
    share = {row[0]: row[head.index("cut off")] for row in table}
    assert set(share) == {"limit-2", "limit-24"}
    assert float(share["limit-2"]) > 90
    assert float(share["limit-24"]) < 50
    ended = [result for file in files[2:] for result in read_results(file).results if result.cut_off == 0]
    assert ended
    assert all(result.tokens <= 24 for result in ended)
    assert len(rows_of(tmp_path / "out" / "limit-24" / "by_modality_and_task.csv")) == 10
