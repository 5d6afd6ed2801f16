"""Rows, completions, files and flags that nobody would think of: results or one line, the same every time.

Hypothesis draws small cases and shrinks what fails (a fixed seed: the same cases in every run); `scripts/fuzz.py`
damages whole files, here some hundred of the 20,000 that it is made for.
"""

import json
import random
import string
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from open_r1.common.errors import UnusableInput, UserError
from open_r1.data import json_lists
from open_r1.data.json_lists import json_entries
from open_r1.data.loading import load_rows
from open_r1.data.omnimedvqa.source import Question, read_release
from open_r1.data.omnimedvqa.splits import draw_per_image, draw_per_question
from open_r1.data.rows import RowError, check_row
from open_r1.data.text import files
from open_r1.data.text.files import rows_of
from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import Result, Sample, published_form, read_results
from open_r1.grading.formats import FORMS, follows_format
from open_r1.grading.grader import Outcome, grade
from open_r1.grading.huatuo import match_choice
from open_r1.grading.problems import LETTERS, options_in, render_lines, render_problem
from open_r1.rewards.registry import REWARDS
from open_r1.rewards.settings import RewardSettings
from open_r1.training.command_line.parsing import parse
from open_r1.vocabulary.modes import Mode
from open_r1_testbed import damage, fuzz_log, fuzzing
from open_r1_testbed.fuzz_log import Log

quick = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
few = settings(quick, max_examples=40)

# Half a surrogate pair is text that json can hold and UTF-8 cannot.
signs = st.characters(codec=None) | st.sampled_from(list("ABCDabcd.,:;)(][}{ \n\t<>/\\$*_'\"\ud800\u0130\u0301"))
texts = st.text(signs, max_size=40)
option_lists = st.lists(st.text(signs, min_size=1, max_size=25), min_size=2, max_size=6)
tags = ("<think>", "</think>", "<answer>", "</answer>", "</ANSWER >", "\\boxed{", "}", "**", "<|im_end|>", "\n", " ")
claims = ("the answer is ", "answer: ", "not ", "or ", "wait, ", "A", "B", "C", "D", "c)", "(b)", "A.", "(", "答案是")
pieces = st.sampled_from([*tags, *claims])
completions = st.lists(pieces | texts, max_size=14).map("".join)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)

# ------------------------------------------------------------------------------------------------- questions


@quick
@given(texts, option_lists)
def test_a_rendered_problem_reads_back_or_is_refused(question: str, options: list[str]) -> None:
    for render, read in ((render_problem, str.strip), (render_lines, lambda text: " ".join(text.split()))):
        try:
            problem = render(question, options)
        except UserError:
            continue
        assert list(options_in(problem).values()) == [read(option) for option in options]


@quick
@given(texts)
def test_options_are_consecutive_letters_or_there_are_none(problem: str) -> None:
    try:
        options = options_in(problem)
    except UserError:
        return
    assert "".join(options) == LETTERS[: len(options)]
    assert len(options) >= 2


# ----------------------------------------------------------------------------------------------- completions


@settings(quick, max_examples=400)
@given(completions, option_lists, st.integers(0, 5))
def test_a_grade_is_an_offered_letter_or_unparsed_and_always_the_same(text: str, options: list[str], gold: int) -> None:
    offered = dict(zip(LETTERS, options, strict=False))
    solution = f"<answer> {LETTERS[gold]} </answer>"
    first = grade(text, solution, offered)
    assert first == grade(text, solution, dict(offered))
    if first.outcome is Outcome.UNPARSED:
        assert first.letter is None
    else:
        assert first.letter in offered
        assert (first.outcome is Outcome.CORRECT) == (first.letter == LETTERS[gold])
    match = match_choice(text, offered)
    assert {match.first.upper(), match.last.upper()} <= set("ABCDEFGHIJKLMN")  # the lenient one always finds one


@quick
@given(st.sampled_from("ABC"), st.sampled_from(["", "<think>no, {}</think>", "<think>it is D or A"]))
def test_a_plain_answer_is_read_whatever_the_thoughts_say(letter: str, thoughts: str) -> None:
    closed = thoughts if thoughts.endswith("</think>") or not thoughts else thoughts + "</think>"
    text = f"{closed.replace('{}', 'A')}<answer>{letter}</answer>"
    assert grade(text, letter, {"A": "x", "B": "y", "C": "z"}) == (Outcome.CORRECT, letter)


CHOICE_ROW = {"problem": ["Is it? A)x, B)y"], "solution": ["<answer> B </answer>"], "completion_ids": [[1, 2, 3]]}
OPEN_ROW = {"problem": ["Is it?"], "solution": ["yes"], "answer_type": ["closed"]}
OF_TEXTS = ("closed", "exact", "token_f1", "rouge_l")


@quick
@given(completions)
def test_every_reward_pays_a_finite_number_and_the_same_again(text: str) -> None:
    for mode in FORMS:
        for name in REWARDS.keys() - {"judge"}:  # which asks a server
            reward = REWARDS[name](mode, RewardSettings(), 100)
            row = OPEN_ROW if name in OF_TEXTS else CHOICE_ROW
            (paid,) = reward([text], **row)
            assert -10 <= paid <= 10, name
            assert reward([text], **row) == [paid], name
            assert reward([[{"role": "assistant", "content": text}]], **row) == [paid], name
    assert [follows_format(text, mode) for mode in Mode] == [follows_format(text, mode) for mode in Mode]


# --------------------------------------------------------------------------------------------- rows and files


@quick
@given(json_values)
def test_any_value_is_a_row_or_is_refused_with_a_reason(value: Any) -> None:
    try:
        image, problem, solution = check_row(value)
    except UnusableInput as error:
        refused = error
    else:
        refused = None
        assert all(isinstance(text, str) for text in (image, problem, solution))
    assert refused is None or (refused.reason and len(str(refused)) < 1000)


rows = st.fixed_dictionaries(
    {"question_type": st.sampled_from(["Modality Recognition", "x", 3, None]) | json_values},
    optional={
        "modality_type": st.sampled_from(["CT(Computed Tomography)", "y"]) | json_values,
        "question": texts | json_values,
        "gt_answer": st.sampled_from(["CT", "MRI"]) | json_values,
        "image_path": st.sampled_from(["Images/a.png", "../x"]) | json_values,
        "option_A": st.just("CT") | json_values,
        "option_B": st.just("MRI") | json_values,
        "dataset": texts | json_values,
    },
)


@quick
@given(st.lists(rows | json_values, max_size=4))
@example(
    [{"dataset": "\ud800", "gt_answer": "a", "option_A": "a", "option_B": "b", "question": "?", "image_path": "x"}]
)
def test_any_release_row_is_dropped_or_its_texts_can_be_stored(tmp_path: Path, values: list[Any]) -> None:
    folder = tmp_path / "QA_information" / "Open-access"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "x.json").write_text(json.dumps(values), encoding="utf-8")
    entries = list(read_release(tmp_path))
    assert len(entries) == len(values)
    for entry in entries:
        if isinstance(entry, Question):
            "".join((entry.image, entry.problem, entry.solution, entry.source)).encode()


@quick
@given(st.binary(max_size=60) | texts.map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"[" * 100_000)
@example(b'[{"a": ' + b"9" * 5000 + b"}]")
@example(b"\xef\xbb\xbf[]")
@example(b"[NaN, -Infinity]")
@example(b'[{"image": 1, "image": 2}]')
def test_any_file_is_read_or_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    readers: dict[str, Callable[[Path], Any]] = {
        "x.json": lambda path: list(json_entries(path)),
        "y.json": lambda path: list(rows_of(path)),
        "y.jsonl": lambda path: list(rows_of(path)),
        "y.csv": lambda path: list(rows_of(path)),
        "y.parquet": lambda path: list(rows_of(path)),
        "z.jsonl": read_results,
    }
    for name, read in readers.items():
        (tmp_path / name).write_bytes(data)
        assert "\n" not in refusal(lambda read=read, name=name: read(tmp_path / name)), name


def refusal(call: Callable[[], object]) -> str:
    """The one line that a call ends in; '' where it succeeds."""
    try:
        call()
    except UserError as error:
        return str(error)
    return ""


def test_a_number_of_thousands_of_digits_costs_its_row_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(f'[{{"image": {"9" * 5000}}}, {{"image": "a"}}]')  # int() refuses more than 4,300 digits
    assert list(json_entries(path))[1] == {"image": "a"}


GOOD = {"image": "a.png", "problem": "Which? A)x, B)y", "solution": "A"}


@pytest.mark.parametrize("chunk", [5, 64, 4096])
def test_a_text_without_end_costs_its_row_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(json_lists, "_CHUNK", chunk)
    monkeypatch.setattr(json_lists, "LONGEST_ENTRY", 300)
    path = tmp_path / "x.json"
    for long in ("x" * 5000, "\\" * 999 + '"],[{', "\u00e9]}," * 200):
        for row in ({**GOOD, "problem": long}, [[long]], long, {"a": [{"b": long}, {}]}):
            for ascii_only in (True, False):
                path.write_text(json.dumps([GOOD, row, GOOD, 7], ensure_ascii=ascii_only), encoding="utf-8")
                first, second, third, last = json_entries(path)
                assert (first, third, last) == (GOOD, GOOD, 7)
                assert isinstance(second, RowError)
                assert second.reason == "too-long"
    path.write_text(json.dumps([GOOD, "x" * 5000])[:-2])
    with pytest.raises(UserError, match="is no valid JSON at entry 1"):
        list(json_entries(path))


@pytest.mark.slow
def test_300_megabytes_in_one_text_cost_that_row_and_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with path.open("w") as file:
        file.write(f'[{json.dumps(GOOD)}, {{"image": "b.png", "problem": "')
        for _ in range(300):
            file.write("x" * 2**20)
        file.write(f'"}}, {json.dumps(GOOD)}]')
    tracemalloc.start()
    try:
        entries = list(json_entries(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [isinstance(entry, RowError) for entry in entries] == [False, True, False]
    assert peak < 100 * 2**20  # bytes; 300 MB of text stay on the disk


def test_long_texts_cost_their_rows_in_every_form_of_text_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (json_lists, files):
        monkeypatch.setattr(module, "LONGEST_ENTRY", 300)
    rows = [{"question": "a"}, {"question": "x" * 5000}, {"question": "b"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.json").write_text(json.dumps(rows))
    (tmp_path / "c.json").write_text(json.dumps({"S": rows}))
    (tmp_path / "d.csv").write_text("question\n" + "".join(row["question"] + "\n" for row in rows))
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "e.parquet"))
    for path in sorted(tmp_path.iterdir()):
        rows = [row for _, row in rows_of(path)]
        assert [row["question"] if isinstance(row, dict) else row.reason for row in rows] == ["a", "too-long", "b"]


@pytest.mark.parametrize("twice", ['"solution": "B"', '"more": {"k": 1, "k": 1}', '"more": [{"k": 1, "k": 2}]'])
def test_a_key_that_stands_twice_costs_its_row_by_name(tmp_path: Path, twice: str) -> None:
    row = json.dumps(GOOD)[:-1] + f", {twice}}}"
    other = json.dumps({**GOOD, "problem": "What? A)x, B)y"})
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "x.json").write_text(f"[{row}, {other}]")
    rows, dropped = load_rows(tmp_path / "x.json", None, tmp_path)
    assert len(rows) == 1
    assert [error.reason for error in dropped] == ["repeated-key"]
    assert "stands twice" in dropped[0].detail
    forms = {
        "a.jsonl": f"{row}\n{other}\n",
        "b.json": f"[{row}, {other}]",
        "c.json": f'{{"S": [{row}, {other}]}}',
        "d.json": f'{{"1": {row}, "2": {other}}}',
    }
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
        first, second = (content for _, content in rows_of(tmp_path / name))
        assert isinstance(first, RowError), name
        assert first.reason == "repeated-key"
        assert isinstance(second, dict)


def test_an_id_that_stands_twice_in_a_file_of_ids_loses_no_row_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"7": {"question": "a"}, "7": {"question": "b"}}')
    assert [row for _, row in rows_of(tmp_path / "x.json")] == [
        {"question": "a", "id": "7"},
        {"question": "b", "id": "7"},
    ]


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("question,answer,question\na,b,c\n")
    with pytest.raises(UserError, match="two columns 'question'"):
        list(rows_of(tmp_path / "x.csv"))


# ------------------------------------------------------------------------------------------------ result files

results = st.builds(
    Result,
    id=texts,
    source=texts,
    image=texts,
    modality=st.none() | texts,
    task=st.none() | texts,
    problem=texts,
    solution=st.just("<answer> A </answer>"),
    output=texts,
    outcome=st.none() | st.sampled_from(list(Outcome)),
    letter=st.none() | st.sampled_from("AB"),
    tokens=st.integers(0, 9),
    error=st.none() | texts,
    blind=st.none() | st.floats(0, 1),
    seen=st.none() | st.booleans(),
    samples=st.none() | st.lists(st.builds(Sample, texts, st.sampled_from(list(Outcome)), st.just("A"), st.just(1))),
)


@quick
@given(st.lists(results, max_size=4, unique_by=lambda result: result.id), st.integers(0, 2**30))
def test_results_are_read_as_they_were_written_and_a_cut_costs_one(
    tmp_path: Path, written: list[Result], cut: int
) -> None:
    path = tmp_path / "out.jsonl"
    path.unlink(missing_ok=True)
    with ResultWriter(path, {"rows": len(written)}) as writer:
        for result in written:
            writer.write(result)
    assert read_results(path).results == written
    json.dumps(published_form(written))
    data = path.read_bytes()
    whole = data.index(b"\n") + 1
    path.write_bytes(data[: whole + cut % (len(data) - whole + 1)])
    left = read_results(path).results
    assert left == written[: len(left)]


# ------------------------------------------------------------------------------------------------------- splits


@quick
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=60),
    st.integers(0, 5),
)
def test_draws_are_reproducible_and_keep_what_they_promise(drawn: list[tuple[int, int, int]], seed: int) -> None:
    cells, images = [(modality, task) for modality, task, _ in drawn], [image for *_, image in drawn]
    numbers = [hash(("question", place)) % 2**64 for place in range(len(drawn))]
    for draw, identity in ((draw_per_question, numbers), (draw_per_image, images)):
        sides = draw(cells, identity, seed)  # type: ignore[operator]
        assert len(sides) == len(drawn)
        assert set(sides) <= {0, 1}
        assert bytes(sides) == bytes(draw(cells, identity, seed))  # type: ignore[operator]
    by_image = draw_per_image(cells, images, seed)
    assert all(len({by_image[k] for k, drawn_name in enumerate(images) if drawn_name == name}) == 1 for name in images)


# ------------------------------------------------------------------------------------------------------- flags

REQUIRED = ["--model_name_or_path", "m", "--dataset_name", "d", "--output_dir", "o"]
FLAGS = (
    *("--mode", "--max_prompt_length", "--overlong_prompts", "--reward_funcs", "--num_generations", "--beta", "--seed"),
    *("--curriculum", "--hard_fraction", "--difficulty", "--learning_rate", "--lr_scheduler_type", "--bf16", "--optim"),
    *("--deepspeed", "--accelerator_config", "--report_to", "--save_strategy", "--cosine_max_len", "--nonsense", "--x"),
)
words = (
    st.sampled_from(["0", "-1", "1e999", "nan", "x", "[", "{}", "true", "think", "2", "no", "none", "../x", ""]) | texts
)


@few
@given(st.lists(st.tuples(st.sampled_from(FLAGS), st.lists(words, max_size=2)), max_size=4))
def test_any_flags_are_settings_or_one_line(tmp_path: Path, drawn: list[tuple[str, list[str]]]) -> None:
    arguments = [*REQUIRED, *(word for flag, values in drawn for word in (flag, *values))]
    parses_or_refuses(["--output_dir" if argument in ("--help", "-h") else argument for argument in arguments])


def parses_or_refuses(arguments: list[str]) -> str:
    return refusal(lambda: parse(arguments))


@pytest.mark.parametrize(
    ("content", "message_part"),
    [
        (b"!!python/object/apply:os.system ['touch %s']", "could not determine a constructor for the tag"),
        (b"beta: !!python/name:os.system", "could not determine a constructor for the tag"),
        (b"beta: !!python/object/new:subprocess.Popen [['touch', '%s']]", "could not determine a constructor"),
        (b"a: [", "while parsing a flow node"),
        (b"\t", "cannot start any token"),
        (b"[" * 20_000, "RecursionError"),
        (b"5: 6", "keywords must be strings"),
        (b"\xff\xfe\0", "codec can't decode"),
        (b"- a", "must contain a YAML mapping"),
        (b"nonsense: 1", "nonsense"),
    ],
)
def test_a_recipe_runs_no_code_and_what_it_cannot_mean_is_one_line(
    tmp_path: Path, content: bytes, message_part: str
) -> None:
    path, touched = tmp_path / "recipe.yaml", tmp_path / "touched"
    path.write_bytes(content.replace(b"%s", str(touched).encode()))
    message = parses_or_refuses([*REQUIRED, "--config", str(path)])
    assert message_part in message
    assert "\n" not in message
    assert not touched.exists()


@few
@given(st.text(string.printable, max_size=60))
def test_any_text_is_a_recipe_or_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    assert "\n" not in parses_or_refuses([*REQUIRED, "--config", str(tmp_path / "recipe.yaml")])


# ------------------------------------------------------------------------------------------------- whole files


@pytest.mark.slow
def test_damaged_files_end_in_a_line_or_a_result_and_lose_no_good_row(
    tmp_path: Path,
) -> None:
    fuzz = fuzzing.Fuzz(tmp_path / "work", 7, tmp_path / "kept")
    with fuzz_log.quiet():
        fuzz.run(500)
    print("\n".join(fuzzing.lines(fuzz, 0)))
    assert fuzz.log.faults == []
    assert sum(fuzz.files.values()) == 500
    outcomes = {outcome for _, _, outcome in fuzz.log.counts}
    assert outcomes >= {"read", "dropped with a reason", "refused by name", "reported", "answered"}


def test_the_fuzzer_notices_a_traceback_and_a_lost_row(tmp_path: Path) -> None:
    log = Log(tmp_path)
    with log.watch("door", "kind", {"x": b"1"}):
        raise KeyError("planted")
    with log.watch("door", "batch of many", {}):
        raise UserError("planted too")
    assert [fault.split(": ")[1] for fault in log.faults] == ["KeyError", "all good rows are lost"]
    assert (tmp_path / "000-door-kind" / "x").read_bytes() == b"1"
    entries = [damage.row(number, "x.png") for number in range(3)]
    assert fuzzing.good_rows(json.dumps([entries[0], 5, entries[2]]).encode(), entries) == [entries[0], entries[2]]
    draw = random.Random(0)
    data = damage.seed_images()[0][1]
    assert all(change(data, data, draw) != data for change in (damage.truncate, damage.insert, damage.append))
