"""The page of a training: its first screen and curves, and folders that hold no training."""

import re
from pathlib import Path

import pytest
from recorded_runs import made_log, write_lines, write_run

from open_r1.common.errors import UserError
from open_r1.evaluation.reporting.trainings.curve_panels import MOST_POINTS, short_number, themes, thinned
from open_r1.evaluation.reporting.trainings.page import training_page
from open_r1.evaluation.reporting.trainings.reading import read_trainings

ROOT = Path(__file__).resolve().parents[2]
ALARMS = [
    {"step": 6, "alarm": "length_collapse", "value": 3.0, "message": "an earlier part of the run"},
    {"step": 6, "alarm": "length_collapse", "value": 4.0, "message": "completions have 4 tokens <b>"},
]


def text_of(folder: Path, *more: Path) -> str:
    return training_page([folder, *more]).decode()


def test_the_first_screen_says_what_happened(tmp_path):
    log = [
        {"step": step, "epoch": step / 10, "reward": reward, "step_time": 60.0}
        for step, reward in enumerate([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], 1)
    ]
    page = text_of(write_run(tmp_path / "CT", log, alarms=ALARMS, continued=[{"at_step": 4}]))
    assert "<h1>Training CT, Qwen2.5-VL-3B (grpo, nothink) on CT_384, step 8 of 100, 2026-11-27</h1>" in page
    # means of the first and last quarter, 2 values: 0.15 and 0.75
    assert (
        "Reward went from 0.15 (steps 1 to 2, n 32 completions) to 0.75 (steps 7 to 8, n 32 completions). "
        "Alarms: length collapse (from step 6)."
    ) in page
    cells = re.findall("<td>(.*?)</td>", page)
    assert cells[3:6] == ["8 of 100", "8 min", "about 1 h 32 min"]  # 8 x 60 s; 92 x 60 s
    assert cells[6] == "running, continued at step 4"
    assert "completions have 4 tokens &lt;b&gt;" in page
    assert "an earlier part" not in page  # the last line of a step and alarm counts
    assert page.count('class="mark alarm run-0"') == page.count('class="mark continued run-0"') > 0
    assert "No groups.jsonl in CT (trained with --record none, or by an earlier version)" in page


def test_without_elapsed_seconds_an_entry_counts_for_all_its_steps(tmp_path):
    log = [{"step": step, "epoch": step / 10, "reward": 0.5, "step_time": 60.0} for step in (5, 10)]
    cells = re.findall("<td>(.*?)</td>", text_of(write_run(tmp_path / "CT", log)))
    assert cells[3:6] == ["10 of 100", "10 min", "about 1 h 30 min"]


def test_every_logged_number_has_a_curve_in_its_theme(tmp_path):
    log = [entry | {"gpu_peak_gib": 40.0, "seconds/rollout": 3.0, "an_own/number": 5} for entry in made_log(50)]
    log += [{"step": 50, "eval_reward": 1.2, "eval_loss": 0.3}, {"step": 50, "train_runtime": 3.0, "total_flos": 0.0}]
    drawn = themes(read_trainings([write_run(tmp_path / "CT", log)]))
    assert {theme.title: ([d.key for d in theme.main], [d.key for d in theme.more]) for theme in drawn} == {
        "Rewards": (
            ["reward", "rewards/accuracy_reward/mean", "rewards/format_reward/mean", "frac_reward_zero_std"],
            ["reward_std"],
        ),
        "Lengths": (["completions/mean_length"], []),
        "KL, entropy and gradient": (["kl", "entropy", "grad_norm", "loss"], []),
        "Speed": (["step_time"], ["seconds/rollout"]),
        "Memory": (["gpu_peak_gib"], []),
        "Other numbers": ([], ["an_own/number"]),
    }
    reward, length = drawn[0].main[0], drawn[1].main[0]
    assert [line.kind for line in reward.lines] == ["raw", "smooth", "evaluated", "dots"]
    assert [line.kind for line in length.lines] == ["band", "raw", "smooth"]
    assert length.label == "30 to 30"


def test_curves_of_two_runs_share_their_axes(tmp_path):
    runs = [write_run(tmp_path / name, made_log(steps)) for name, steps in (("CT", 20), ("MRI", 10))]
    (kl,) = [d for theme in themes(read_trainings(runs)) for d in theme.main if d.key == "kl"]
    first, second = (line.path for line in kl.lines if line.kind == "smooth")
    assert second in first  # the same values at the same steps: the longer run goes on
    page = text_of(*runs)
    assert "<h1>Trainings CT, MRI, 2026-11-27</h1>" in page
    assert page.count("No alarm is recorded.") == 2
    assert "CT: reward went from" in page


def test_an_alarm_of_steps_that_are_done_again_is_listed_and_not_drawn(tmp_path):
    page = text_of(write_run(tmp_path / "CT", made_log(5), alarms=ALARMS, continued=[{"at_step": 4}]))
    assert "completions have 4 tokens" in page
    assert "mark alarm" not in page
    assert "mark continued" in page


def test_a_training_without_rewards_is_told_by_its_loss(tmp_path):
    log = [{"step": step, "loss": 3.0 - step} for step in (1, 2)]
    assert "Loss went from 2 (step 1, n 16 completions) to 1 (step 2" in text_of(write_run(tmp_path / "sft", log))
    text = text_of(write_run(tmp_path / "sft", log, completions_per_step=None))
    assert "Loss went from 2 (step 1) to 1 (step 2). No alarm" in text


def test_a_run_that_goes_on_from_another_says_so(tmp_path):
    text = write_run(tmp_path / "text", made_log(5))
    images = write_run(tmp_path / "images", made_log(5), base_model=str(text))
    assert "images started from the weights that text ended with." in text_of(text, images)


def test_many_points_become_means_and_extremes():
    steps, values = list(range(1, 10_001)), [float(step % 2) for step in range(10_000)]
    means, extremes = thinned((steps, values))
    assert len(means[0]) <= MOST_POINTS
    assert set(means[1]) <= {0.5, 17 / 34}  # blocks of 34
    assert set(extremes[1]) == {0.0, 1.0}
    assert thinned(([1, 2], [3.0, 4.0])) == (([1, 2], [3.0, 4.0]), ([1, 2], [3.0, 4.0]))


def test_numbers_are_short():
    assert [short_number(v) for v in (0.03123, 12.0, 1234.0, 12_345.0, 3_200_000.0, 1.3e-8)] == [
        *("0.0312", "12", "1234", "12.3 k", "3.2 M", "1.3e-08"),
    ]


def test_what_is_no_training_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"holds no metrics\.jsonl or trainer_state\.json"):
        training_page([tmp_path])
    write_lines(tmp_path / "new" / "metrics.jsonl", [])
    with pytest.raises(UserError, match="holds no whole line yet"):
        training_page([tmp_path / "new"])
    run = write_run(tmp_path / "broken", made_log(3))
    (run / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json cannot be read"):
        training_page([run])
    with pytest.raises(UserError, match="name at most 10"):
        training_page([write_run(tmp_path / "CT", made_log(1))] * 11)


def test_a_half_written_line_and_no_run_record_are_no_obstacle(tmp_path):
    run = write_run(tmp_path / "CT", made_log(3))
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "rew')
    (run / "run.json").unlink()
    page = text_of(run)
    assert "<h1>Training CT, step 3</h1>" in page
    assert "reward" in page


@pytest.mark.slow
def test_the_command_writes_page_and_image_together_or_alone(tmp_path, load_script, monkeypatch, capsys):
    main = load_script("eval/curves.py").main
    run = write_run(tmp_path / "CT", made_log(3))

    def call(*words: str) -> int:
        monkeypatch.setattr("sys.argv", ["curves.py", str(run), *words])
        return main()

    assert call("--html", str(tmp_path / "a.html"), "--output", str(tmp_path / "a.svg")) == 0
    assert call("--html", str(tmp_path / "b.html")) == 0
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert (tmp_path / "a.svg").is_file()
    assert "b.html" in capsys.readouterr().out
    with pytest.raises(UserError, match="nothing is to be written"):
        call()
    with pytest.raises(UserError, match=r"must end in \.html"):
        call("--html", str(tmp_path / "a.png"))
