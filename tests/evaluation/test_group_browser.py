"""The page of a training in a real Chromium: groups, questions over the run, two runs, curves, keys and addresses."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import Page
from recorded_runs import group_line, made_log, write_run

from open_r1.evaluation.reporting.trainings.page import training_page

pytestmark = pytest.mark.slow

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">{{js}}"
STEPS, QUESTIONS = 30, 7


def made_groups(seed: int) -> list[dict[str, Any]]:
    """Three groups of four completions a step; question k % 7 comes again every 7 groups."""
    draw, lines = random.Random(seed), []
    for step in range(1, STEPS + 1):
        for place in range(3):
            rights = [int(draw.random() < step / STEPS) for _ in range(4)]
            texts = [f"It is {'B' if right else 'A'} in {seed} at {step}." for right in rights]
            number = (3 * step + place) % QUESTIONS
            flags = {"left_out": place == 0 and len(set(rights)) == 1, "replaced": place == 2}
            lines.append(group_line(step, f"q{number}", rights, texts, modality=("CT", "MRI")[number % 2], **flags))
    lines[4]["completions"][1] = HOSTILE
    return lines


@pytest.fixture(scope="module")
def groups() -> list[list[dict[str, Any]]]:
    return [made_groups(seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, groups) -> Path:
    folder = tmp_path_factory.mktemp("page")
    alarms = [{"step": 20, "alarm": "kl", "value": 9.0, "message": HOSTILE}]
    runs = [
        write_run(folder / name, made_log(STEPS, seed), lines, alarms)
        for seed, (name, lines) in enumerate(zip(("CT", "MRI"), groups, strict=True))
    ]
    (folder / "one.html").write_bytes(training_page(runs[:1]))
    (folder / "two.html").write_bytes(training_page(runs))
    return folder


@pytest.fixture
def page(browser, folder) -> Iterator[Page]:
    page = Page(browser, folder / "one.html")
    yield page
    assert browser.get_log("browser") == []
    assert browser.title.startswith("Training")
    assert all(url.startswith("file:") for url in page.requests())


def outcome(line: dict[str, Any]) -> str:
    rights = set(line["rewards"]["accuracy"])
    return "mixed" if len(rights) == 2 else "right" if rights == {1.0} else "wrong"


def test_groups_are_listed_by_step_outcome_gradient_and_label(page, groups):
    lines = groups[0]
    assert page.shown == f"1 to 20 of {len(lines)} groups"
    assert page.texts(".group-head a")[:4] == ["step 1", "step 1", "step 1", "step 2"]
    for name, text, fits in [
        ("outcome", "all right", lambda line: outcome(line) == "right"),
        ("outcome", "mixed", lambda line: outcome(line) == "mixed"),
        ("outcome", "all wrong", lambda line: outcome(line) == "wrong"),
        ("gradient", "gives a gradient", lambda line: outcome(line) == "mixed"),
        ("gradient", "dead: gives none", lambda line: outcome(line) != "mixed"),
        ("gradient", "left out of the update", lambda line: line["left_out"]),
        ("gradient", "replacement of a dead one", lambda line: line["replaced"]),
        ("modality", "MRI", lambda line: line["modality"] == "MRI"),
    ]:
        page.choose(name, text)
        rows = [line for line in lines if fits(line)]
        assert 0 < len(rows) < len(lines)
        assert page.shown == f"1 to {min(20, len(rows))} of {len(rows)} groups", text
        assert page.texts(".item .id") == [line["id"] for line in rows][:20]
        page.script("document.getElementById(arguments[0]).selectedIndex = 0", name)
    page.choose("modality", "all")
    page.enter("from", "5")
    page.enter("to", "6")
    assert page.shown == "1 to 6 of 6 groups"
    rights = sum(sum(line["rewards"]["accuracy"]) for line in lines if line["step"] in (5, 6))
    assert f"completions right {rights:.0f} of 24" in page.texts("#rights")[0]


def test_completions_stand_side_by_side_with_what_they_earned(page, groups):
    line = groups[0][4]  # step 2
    page.script("location.hash = arguments[0]", f"#item=CT%2F2%2F{line['id']}")
    page.wait("return document.activeElement.matches('article')")
    card = "document.activeElement"
    texts = page.script(f"return [...{card}.querySelectorAll('.answer pre')].map((e) => e.textContent)")
    order = sorted(range(4), key=lambda place: -line["advantages"][place])
    assert texts == [line["completions"][place] for place in order]
    assert HOSTILE in texts  # as text
    facts = page.script(f"return [...{card}.querySelectorAll('.answer')].map((e) => e.textContent)")
    best = order[0]
    sign = "\u2212" if line["advantages"][best] < 0 else "+"
    wanted = f"advantage {sign}{abs(line['advantages'][best]):g}accuracy {line['rewards']['accuracy'][best]:g}"
    assert f"{wanted} · format 1 · {10 * (best + 1)} tokens" in facts[0]
    assert [("cut off" in fact) for fact in facts] == [place == 3 for place in order]


def test_a_question_is_followed_over_the_run(page, groups):
    page.press("j", "\ue007")  # Enter leads from the first group to its question
    page.wait("return document.getElementById('shown').textContent.endsWith('questions')")
    lines = [line for line in groups[0] if line["id"] == groups[0][0]["id"]]
    assert page.hash == f"#list=questions&item={lines[0]['id']}"
    page.wait("return document.activeElement.matches('article')")
    steps = "return [...document.activeElement.querySelectorAll('.step')].map((e) => e.textContent)"
    assert page.script(steps) == [f"step {line['step']}" for line in lines]
    page.press("\ue007")  # opens its groups
    opened = "return document.activeElement.querySelectorAll('.answer pre').length"
    page.wait(f"{opened} > {len(lines)}")
    assert page.script(opened) <= 4 * len(lines)
    assert page.shown == f"1 to {QUESTIONS} of {QUESTIONS} questions"


def test_two_runs_show_the_same_question_side_by_side(browser, folder, groups):
    page = Page(browser, folder / "two.html", "#list=questions&item=q3")
    page.wait("return document.activeElement.matches('article')")
    heads = page.script("return [...document.activeElement.querySelectorAll('.sides h3')].map((e) => e.textContent)")
    for head, name, lines in zip(heads, ("CT", "MRI"), groups, strict=True):
        of_question = [line for line in lines if line["id"] == "q3"]
        rights = sum(sum(line["rewards"]["accuracy"]) for line in of_question)
        assert head == f"{name} {len(of_question)} groups, {rights:.0f} of {4 * len(of_question)} right"
    lefts = (
        "return [...document.activeElement.querySelectorAll('.run-groups')].map((e) => e.getBoundingClientRect().left)"
    )
    page.resize(1400)
    left, right = page.script(lefts)
    assert right > left + 200
    page.choose("list", "questions of all shown runs")
    page.enter("to", "3")  # 9 groups of 7 questions in each run
    assert page.shown == f"1 to {QUESTIONS} of {QUESTIONS} questions"
    page.enter("text", "in 0 at")  # completions of the first run alone
    assert page.shown == "no question fits"
    page.choose("list", "questions over the run")
    assert page.shown == f"1 to {QUESTIONS} of {QUESTIONS} questions"
    assert page.texts(".item:first-child .sides h3")[1] == "MRI no group"
    page.show("MRI")
    assert page.shown == "no question fits"


def test_search_keys_and_addresses(page, browser, folder, groups):
    page.press("/")
    assert page.script("return document.activeElement.id") == "text"
    page.press("\ue00c")
    page.enter("text", "at 17.")
    assert page.shown == "1 to 3 of 3 groups"
    page.click("clear")
    page.press("j", "j")
    assert page.hash == f"#item=CT%2F1%2F{groups[0][1]['id']}"
    page.press("\ue014")  # arrow to the right
    assert page.shown == f"21 to 40 of {3 * STEPS} groups"
    page.choose("outcome", "mixed")
    page.choose("sort", "fewest right")
    address, ids = page.hash, page.texts(".item .id")
    assert address == "#outcome=mixed&sort=fewest"
    assert Page(browser, folder / "one.html", address).texts(".item .id") == ids
    page.script("location.hash = '#item=CT/99/q1'")
    page.wait("return document.getElementById('shown').textContent === 'no group has the id CT/99/q1'")


def test_a_curve_says_its_value_and_leads_to_the_groups_of_a_step(page):
    from selenium.webdriver.common.action_chains import ActionChains

    svg = page.driver.find_element("css selector", ".diagram svg")
    box = page.script("const b = arguments[0].getBoundingClientRect(); return [b.width, b.height]", svg)
    across = (40 + (332 - 40) * 9 / 29) / 340 - 0.5  # step 10 of 30
    page.script("arguments[0].scrollIntoView({block: 'center'})", svg)
    ActionChains(page.driver).move_to_element_with_offset(svg, round(across * box[0]), 0).perform()
    assert page.texts(".diagram output")[0] == f"step 10: {made_log(STEPS)[9]['reward']:.4g}"
    ActionChains(page.driver).click().perform()
    page.wait("return document.getElementById('shown').textContent === '1 to 3 of 3 groups'")
    assert page.hash == "#from=10&to=10"
    assert page.texts(".group-head a") == ["step 10"] * 3


@pytest.mark.parametrize("width", [1400, 390])
def test_it_fits_a_desktop_and_a_phone(browser, folder, width):
    page = Page(browser, folder / "two.html")
    page.resize(width)
    for address in ("", "#list=questions"):
        page.script("location.hash = arguments[0]", address)
        page.wait()
        assert page.script("return document.documentElement.scrollWidth") <= width
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = ("button", "combobox", "searchbox", "spinbutton", "checkbox", "link", "feed", "article", "image")
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    assert [role for role, name in named if role in roles and not name.strip()] == []
