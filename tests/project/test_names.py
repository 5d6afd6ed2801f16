"""A variable says what it holds: vague names make up less than 0.5 % of all bindings."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
VAGUE = {
    *("found", "each", "one", "own", "told", "kept", "asked", "known", "begun"),
    *("given", "held", "made", "taken", "seen", "shown", "said", "done", "others"),
}
SHARE = 0.005


def bindings(tree: ast.Module) -> Iterator[str]:
    """The names that assignments, loops, arguments and `except` clauses bind."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg) and node.arg not in ("self", "cls"):
            yield node.arg
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["src/open_r1", "src/open_r1_testbed", "tests"])
def test_variables_say_what_they_hold(folder: str) -> None:
    by_file = {path: list(bindings(ast.parse(path.read_text()))) for path in (REPOSITORY / folder).rglob("*.py")}
    total = sum(map(len, by_file.values()))
    vague = Counter(f"{path.name}: {name}" for path, names in by_file.items() for name in names if name in VAGUE)
    assert total > 1000
    assert vague.total() < SHARE * total, vague.most_common(20)


def test_every_kind_of_binding_is_counted() -> None:
    code = "found = 1\nfor each in x: pass\ndef f(self, one, *own): pass\ntry: pass\nexcept E as told: pass\n"
    code += "with a as kept: pass\n[asked for asked in x]\n(known := 1)\n"
    names = set(bindings(ast.parse(code)))
    assert names == {"found", "each", "one", "own", "told", "kept", "asked", "known"}
