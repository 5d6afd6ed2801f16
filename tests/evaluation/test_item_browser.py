"""The item browser in a real Chromium: filters, order, addresses, keys, and texts that stay texts."""

from pathlib import Path
from typing import Any

import pytest
from browsed_runs import write_runs
from chromium import Page
from report_files import questions_in

from open_r1.data.loading import load_rows
from open_r1.data.row_images import image_key
from open_r1.evaluation.reporting.items.browser import OUTCOMES
from open_r1.evaluation.reporting.report import write_report
from open_r1.grading.grader import Outcome
from open_r1_testbed.phantoms import make_phantoms, save_prepared

pytestmark = pytest.mark.slow

CORRECT, WRONG = OUTCOMES.index(Outcome.CORRECT), OUTCOMES.index(Outcome.WRONG)
RUNS = ("base", "sft", "think", "nothink", "think-blind", "think-shuffled")
BASE, SFT, THINK, NOTHINK, BLIND, SHUFFLED = range(6)
HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">{{js}}"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 questions in 8 modalities, six runs: four checkpoints, one of them also blind and with shuffled options."""
    folder = tmp_path_factory.mktemp("browser")
    make_phantoms(folder / "phantoms", train=1, test=3)
    data = save_prepared(folder / "phantoms", folder / "prepared")
    rows: list[Any] = list(load_rows(data, "test")[0])
    rows[3]["problem"] = f"{HOSTILE} What? A){HOSTILE}, B)two"
    rows[3]["solution"] = "<answer> B </answer>"
    paths = write_runs(folder, rows, image_key, data=str(data), split="test", data_sha256="x")
    write_report(paths, folder / "out", with_items=True)
    return folder / "out" / "report.html"


@pytest.fixture(scope="module")
def questions(report: Path) -> list[dict[str, Any]]:
    return questions_in(report)


def ids(questions: list[dict[str, Any]]) -> list[str]:
    return [question["id"] for question in questions]


def right(question: dict[str, Any], run: int) -> bool:
    return question["answers"][run]["outcome"] == CORRECT


def count_of(chosen: list[dict[str, Any]]) -> str:
    return f"1 to {min(20, len(chosen))} of {len(chosen)} questions" if chosen else "no question fits"


# --------------------------------------------------------------------------------------------------- filters


def test_each_filter_lists_the_questions_that_it_names(browser, report, questions):
    page = Page(browser, report)
    assert page.shown == "1 to 20 of 120 questions"
    page.choose("modality", "MRI")
    mri = [question for question in questions if question["modality"] == "MRI"]
    assert page.shown == count_of(mri) == "1 to 15 of 15 questions"
    assert page.texts(".item .id") == ids(mri)
    page.choose("task", "Lesion Grading")
    assert page.texts(".item .labels:first-child")[0].startswith("MRI · Lesion Grading")
    page.click("clear")
    page.choose("outcome think", "wrong")
    page.choose("outcome nothink", "correct")
    rows = [q for q in questions if q["answers"][THINK]["outcome"] == WRONG and right(q, NOTHINK)]
    assert page.shown == count_of(rows)
    assert page.texts(".item .id") == ids(rows)[:20]
    page.click("clear")
    page.choose("run", "think")
    for name, text, fits in [
        ("blind", "right too", lambda q: right(q, BLIND)),
        ("blind", "not right", lambda q: not right(q, BLIND)),
        ("seen", "seen", lambda q: q["seen"] == 1),
        ("cut", "cut off", lambda q: q["answers"][THINK]["cutOff"] > 0),
        ("cut", "not cut off", lambda q: q["answers"][THINK]["cutOff"] == 0),
        ("look", "consistent, relies on the image", lambda q: q["answers"][THINK]["look"] == 0),
        ("look", "inconsistent, does not rely on it", lambda q: q["answers"][THINK]["look"] == 3),
    ]:
        page.choose(name, text)
        rows = [question for question in questions if fits(question)]
        assert 0 < len(rows) < 120
        assert page.shown == count_of(rows), (name, text)
        page.script("document.getElementById(arguments[0]).selectedIndex = 0", name)
    page.choose("blind", "right or not")
    page.enter("from", "100")
    page.enter("to", "150")
    assert page.shown == count_of([q for q in questions if 100 <= q["answers"][THINK]["tokens"] <= 150])
    assert browser.get_log("browser") == []
    assert page.requests() == [report.as_uri()]


def test_the_quadrants_are_those_of_the_section_does_it_look(questions):
    for question in questions:
        chosen, blind, shuffled = (question["answers"][run]["read"] for run in (THINK, BLIND, SHUFFLED))
        consistent, relies = chosen is not None and chosen == shuffled, chosen is None or chosen != blind
        assert question["answers"][THINK]["look"] == 2 * (not consistent) + (not relies)
        assert question["answers"][BASE]["look"] == -1


def test_two_runs_are_compared_in_every_way(browser, report, questions):
    page = Page(browser, report)
    page.choose("run", "think")
    page.choose("other", "sft")
    for text, fits in [
        ("differ in outcome", lambda a, b: a["outcome"] != b["outcome"]),
        ("differ in answer", lambda a, b: a["read"] != b["read"]),
        ("only the first is right", lambda a, b: a["outcome"] == CORRECT != b["outcome"]),
        ("only the second is right", lambda a, b: a["outcome"] != CORRECT == b["outcome"]),
        ("are both right", lambda a, b: a["outcome"] == CORRECT == b["outcome"]),
        ("are both not right", lambda a, b: CORRECT not in (a["outcome"], b["outcome"])),
    ]:
        page.choose("relation", text)
        rows = [q for q in questions if fits(q["answers"][THINK], q["answers"][SFT])]
        assert 0 < len(rows) < 120
        assert page.shown == count_of(rows), text


def test_any_number_of_runs_stands_beside_each_other(browser, report, questions):
    page = Page(browser, report)
    page.show(*RUNS)
    assert page.texts(".item:first-child .answer h3 .outcome") != []
    assert page.count(".item:first-child .answer") == 6
    counts = [sum(right(question, run) for question in questions) for run in range(6)]
    shares = [f"{name} {count} of 120 ({100 * count / 120:.1f} %)" for name, count in zip(RUNS, counts, strict=True)]
    assert page.texts("#rights") == [f"right among these: {', '.join(shares)}"]
    page.show("think")
    assert page.count(".item:first-child .answer") == 1
    page.show()
    assert page.count(".item:first-child .answer") == 0
    assert page.shown == "1 to 20 of 120 questions"


def test_questions_are_sorted(browser, report, questions):
    page = Page(browser, report)
    page.show("base", "sft", "think", "nothink")
    page.choose("run", "think")

    def rights(question: dict[str, Any]) -> int:
        return sum(right(question, run) for run in (BASE, SFT, THINK, NOTHINK))

    def disagreement(question: dict[str, Any]) -> tuple[int, int]:
        answers = [question["answers"][run] for run in (BASE, SFT, THINK, NOTHINK)]
        return -len({answer["outcome"] for answer in answers}), -len({answer["read"] for answer in answers})

    for text, key in [
        ("fewest runs right", rights),
        ("most runs right", lambda question: -rights(question)),
        ("longest answer", lambda question: -question["answers"][THINK]["tokens"]),
        ("shortest answer", lambda question: question["answers"][THINK]["tokens"]),
        ("runs that disagree most", disagreement),
    ]:
        page.choose("sort", text)
        assert page.texts(".item .id") == ids(sorted(questions, key=key))[:20], text
    page.choose("sort", "id")
    numeric = "return [...arguments[0]].sort(new Intl.Collator('en', {numeric: true}).compare)"
    assert page.texts(".item .id") == page.script(numeric, ids(questions))[:20]


def test_reader_searches_and_hostile_text_stays_text(browser, report, questions):
    page = Page(browser, report)
    page.enter("text", "TAKEN'</script>")
    assert page.shown == "1 to 1 of 1 questions"
    assert page.texts(".item .question") == [f"{HOSTILE} What?"]
    options = page.script("return [...document.querySelectorAll('.options li')].map((e) => e.firstChild.data)")
    assert options == [f"A) {HOSTILE}", "B) two"]
    assert page.count(".item img") == 1
    assert page.script("return document.querySelector('.item img').naturalWidth") == 384
    page.enter("text", questions[7]["id"])
    assert page.texts(".item .id") == [questions[7]["id"]]
    page.show("think")
    page.enter("text", "POSTERIOR segment, which")
    rows = [q for q in questions if "posterior segment, which" in q["answers"][THINK]["texts"][0].lower()]
    assert 0 < len(rows) < 120
    assert page.shown == count_of(rows)
    page.enter("text", "no such text (at all")
    assert page.shown == "no question fits"
    assert browser.title.startswith("Accuracy of 4 checkpoints")
    assert browser.get_log("browser") == []


def test_the_prompt_is_shown_as_the_run_saw_it(browser, report, questions):
    page = Page(browser, report)
    page.show("think", "think-shuffled")
    prompts = page.texts(".item:first-child .answer details pre")
    wording = questions[0]["answers"][THINK]["wording"]
    assert "{Question}" in wording
    options = ", ".join(f"{letter}){text}" for letter, text in zip("ABCD", questions[0]["options"], strict=True))
    assert prompts[0] == wording.replace("{Question}", f"{questions[0]['stem']} {options}")
    reordered = questions[0]["answers"][SHUFFLED]["texts"][1]
    assert prompts[1] == wording.replace("{Question}", reordered)
    assert reordered not in prompts[0]
    assert page.texts(".item:first-child .answer summary") == ["prompt", "prompt, with the options in another order"]
    answers = {question["id"]: question["answers"][SHUFFLED] for question in questions}
    moved = next(name for name, a in answers.items() if len(a["texts"]) > 2 and a["texts"][2] != a["read"])
    page.enter("text", moved)
    assert f"shown to it as {answers[moved]['texts'][2]}" in page.texts(".answer .labels")[1]


# ------------------------------------------------------------------------------------------------- addresses


def test_an_address_opens_filters_order_runs_and_page(browser, report, questions):
    page = Page(browser, report)
    page.show("think", "nothink")
    page.choose("sort", "longest answer")
    page.choose("outcome think", "correct")
    page.click("next")
    address, shown, first = page.hash, page.shown, page.texts(".item .id")
    assert address == "#sort=longest&shown=think&shown=nothink&outcome+think=correct&page=2"
    again = Page(browser, report, address)
    assert (again.shown, again.texts(".item .id"), again.hash) == (shown, first, address)
    assert again.script("return document.getElementById('filters').elements['outcome think'].value") == "correct"
    top, header = again.script(
        "return ['filters', 'header'].map((id) => document.getElementById(id).getBoundingClientRect())"
    )
    assert header["bottom"] <= top["top"] <= header["bottom"] + 120  # the reader sees what is filtered


def test_an_address_opens_one_question_by_its_id(browser, report, questions):
    name = questions[45]["id"]
    page = Page(browser, report, f"#item={name}")
    assert page.shown == "41 to 60 of 120 questions"
    assert page.script("return document.activeElement.querySelector('.id').textContent") == name
    top = page.script("return document.activeElement.getBoundingClientRect().top")
    assert top == pytest.approx(
        page.script("return document.getElementById('pager').getBoundingClientRect().bottom"), abs=6
    )
    links = page.script("return [...document.querySelectorAll('.item .id')].map((a) => a.getAttribute('href'))")
    assert links[5] == f"#item={name}"
    page.script("location.hash = arguments[0]", f"#item={questions[2]['id']}")
    page.wait("return document.getElementById('shown').textContent.startsWith('1 to 20')")
    page.script("location.hash = '#item=nobody'")
    page.wait("return document.getElementById('shown').textContent === 'no question has the id nobody'")
    other = next(question["id"] for question in questions if question["modality"] != "MRI")
    page.script("location.hash = arguments[0]", f"#modality=MRI&item={other}")
    page.wait(f"return document.getElementById('shown').textContent === '{other} does not fit the filters'")


def test_the_back_button_undoes_a_filter_and_a_page(browser, report):
    page = Page(browser, report)
    page.choose("modality", "CT")
    page.choose("outcome base", "wrong")
    filtered = page.shown
    page.choose("outcome base", "any outcome")
    page.choose("modality", "all")
    page.click("next")
    assert page.shown == "21 to 40 of 120 questions"
    for expected in ("1 to 20 of 120 questions", "1 to 15 of 15 questions", filtered, "1 to 15 of 15 questions"):
        browser.back()
        page.wait(f"return document.getElementById('shown').textContent === {expected!r}")
    browser.forward()
    page.wait(f"return document.getElementById('shown').textContent === {filtered!r}")
    assert page.script("return document.getElementById('modality').value") == "CT"


# ------------------------------------------------------------------------------------------------------ keys


def test_keys_go_through_questions_and_pages(browser, report, questions):
    current = "return document.activeElement.querySelector('.id')?.textContent"
    page = Page(browser, report)
    page.press("j", "j", "k", "j")
    assert page.script(current) == questions[1]["id"]
    assert page.hash.endswith(f"item={questions[1]['id']}")
    assert page.script("return document.activeElement.matches(':focus-visible')")
    assert page.script("return parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2
    page.press("\ue014")  # arrow to the right
    assert page.shown == "21 to 40 of 120 questions"
    page.press("j", "k")
    assert page.script(current) == questions[19]["id"]  # the last of the page before
    assert page.shown == "1 to 20 of 120 questions"
    page.press("j", "\ue012")  # onto the second page, and with the arrow back
    assert page.shown == "1 to 20 of 120 questions"


def test_keys_reach_the_search_the_help_and_the_image(browser, report):
    focused = "return document.activeElement.id"
    page = Page(browser, report)
    page.press("/")
    assert page.script(focused) == "text"
    page.press("j")
    page.wait("return document.getElementById('text').value === 'j'")  # a letter here, no step
    page.press("\ue00c")  # Escape leaves the field and its text
    assert page.script(focused) != "text"
    assert page.script("return document.getElementById('text').value") == "j"
    page.press("?")
    assert page.script("return document.getElementById('help').open")
    assert {"j", "k", "/", "?"} <= set(page.texts("#keys kbd"))
    page.press("\ue00c")
    assert not page.script("return document.getElementById('help').open")
    page.click("clear")
    page.press("j", "\ue007")  # Enter
    assert page.script("return document.getElementById('enlarged').open")
    small, large = (
        page.script("return document.querySelector(arguments[0]).getBoundingClientRect().width", selector)
        for selector in ("article img", "#large")
    )
    assert large > 2 * small
    page.press("\ue00c")
    assert not page.script("return document.getElementById('enlarged').open")


def test_a_screen_reader_has_names_and_states(browser, report):
    page = Page(browser, report)
    page.script("document.getElementById('more').open = true")
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")
    ]
    roles = (
        "button",
        "combobox",
        "searchbox",
        "spinbutton",
        "checkbox",
        "link",
        "feed",
        "article",
        "navigation",
        "image",
    )
    assert [role for role, name in named if role in roles and not name.strip()] == []
    assert ("feed", "Questions") in named
    assert ("combobox", "outcome of think") in named
    assert sum(role == "article" for role, _ in named) == 20
    places = "const a = document.querySelectorAll('article')[4]; return [a.ariaPosInSet, a.ariaSetSize]"
    assert page.script(places) == ["5", "120"]
    assert page.script("return document.getElementById('shown').tagName") == "OUTPUT"  # announced when it changes
