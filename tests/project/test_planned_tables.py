"""The tables of docs/gpus.md are what the plan says today, and their commands are those that the pages show."""

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

PAGES = ("README.md", "docs/gpus.md", "docs/text_path.md")


@pytest.fixture
def tables(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import planned_tables  # pyright: ignore[reportMissingImports]

    yield planned_tables
    del sys.modules["planned_tables"]


@pytest.mark.slow
def test_the_tables_of_the_page_are_what_the_plan_says(tables: Any) -> None:
    """`python benchmarks/planned_tables.py --write` brings them up to date."""
    page = tables.PAGE.read_text()
    assert tables.with_tables(page) == page


def test_the_page_shows_every_command_of_the_table(tables: Any, repository: Path) -> None:
    shown = set()
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", (repository / page).read_text(), re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            shown |= {tuple(shlex.split(line, comments=True)) for line in lines}
    assert [command.title for command in tables.COMMANDS if tuple(shlex.split(command.line)) not in shown] == []


def test_seconds_of_a_step_by_hand(tables: Any) -> None:
    """Qwen2.5-VL-3B on an H100: 2 prompts a card of 310 tokens, 784 patches, 4 completions of 10 tokens."""
    layer = 2 * 2048 * 2048 + 2 * 2048 * 256 + 3 * 2048 * 11008  # q and o, k and v, gate, up and down
    language, table = 36 * layer, 151936 * 2048
    vision = tables.model_size(tables.PUBLISHED["Qwen2.5-VL-3B"]).vision_weights
    # forward and backward 6, the reference 2; then the prefill, which needs logits of one token
    flops = 8 * (language * (309 + 40) + table * 40 + vision * 784) + 2 * (language * 310 + table + vision * 784)
    read = 10 * (2 * (language + table) + 36 * 256 * 2 * 2 * 8 * (310 + 5))
    expected = 2 * flops / (0.4 * 989e12) + read / 3350e9
    assert tables.step_seconds(tables.COMMANDS[0], tables.CARDS["H100"]) == pytest.approx(expected)


def test_every_command_fits_its_cards(tables: Any) -> None:
    spare = {}
    for command in tables.COMMANDS:
        spare[command.title] = tables.CARDS[command.card].gib - tables.command_plan(command).gib
    print(spare)
    assert min(spare.values()) > 3.9


def test_plans_are_near_what_was_measured(tables: Any) -> None:
    for entry in tables.MEASURED:
        assert tables.measured_plan(entry) == pytest.approx(entry.gib, rel=0.05)  # seen: -3.4 % and -3.1 %
