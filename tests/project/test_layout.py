"""Folders import only what the table allows, stay small and light, and bear no library's name."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "open_r1"
TESTBED = ROOT / "src" / "open_r1_testbed"
COMMANDS = ("eval", "scripts", "benchmarks")
DOORS = ("grpo.py", "grpo_vqa.py", "grpo_vqa_nothink.py", "sft.py", "sft_vqa.py")

# Which folders of open_r1 a folder may import, beside itself. The doors and study may import all.
LOWEST = {"common", "vocabulary", "grading"}
MAY_IMPORT: dict[str, set[str]] = {
    "common": set(),
    "vocabulary": {"common"},
    "grading": {"common", "vocabulary"},
    "modeling": {"common", "vocabulary"},
    "rewards": LOWEST,
    "data": LOWEST,
    "checkpoints": {"common", "vocabulary", "modeling"},
    "drawing": {"common"},
    "training": {*LOWEST, "modeling", "rewards", "data", "checkpoints", "drawing"},
    "evaluation": {*LOWEST, "modeling", "rewards", "data", "checkpoints", "drawing"},
    "study": {*LOWEST, "modeling", "rewards", "data", "checkpoints", "drawing", "training", "evaluation"},
}
LIBRARIES = {"torch", "trl", "transformers", "datasets", "accelerate", "peft", "deepspeed", "wandb", "matplotlib"}
# What must not be loaded when a module of the folder is imported.
NOT_WHEN_IMPORTED: dict[str, set[str]] = {
    **dict.fromkeys(("common", "vocabulary", "grading", "rewards"), LIBRARIES | {"PIL", "numpy", "huggingface_hub"}),
    "data": {"torch", "trl", "transformers", "accelerate", "peft", "deepspeed", "wandb", "matplotlib"},
    "checkpoints": {"trl", "accelerate", "deepspeed", "datasets", "wandb", "matplotlib"},
}
MODULES_PER_FOLDER, LINES_PER_FILE, LINES_PER_FUNCTION = 12, 400, 65
# Files that are longer, and by how much at most: none may grow.
LONGER_FILES: dict[str, int] = {
    "open_r1/training/grpo/trainer.py": 449,
}


def modules(folder: Path = SOURCE) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if path != SOURCE / "__init__.py")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT / "src"))


def folder_of(dotted: str) -> str | None:
    """The folder of open_r1 that a dotted module lies in; None for a door."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 and (SOURCE / parts[1]).is_dir() else None


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(dotted module, whether it is loaded when this module is imported)."""
    tree = ast.parse(path.read_text())
    lazy = {id(node) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) not in lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = ROOT / "src" / node.module.replace(".", "/") / f"{alias.name}.py"
                yield f"{node.module}.{alias.name}" if inner.is_file() else node.module, id(node) not in lazy


def test_the_table_names_every_folder() -> None:
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(MAY_IMPORT)
    assert {path.name for path in SOURCE.glob("*.py")} == {"__init__.py", *DOORS}


@pytest.mark.slow
@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_a_folder_imports_only_what_the_table_allows(path: Path) -> None:
    folder = folder_of(".".join(path.relative_to(ROOT / "src").with_suffix("").parts))
    if folder is None:
        return
    for name, when_imported in imports(path):
        top = name.partition(".")[0]
        assert top != "open_r1_testbed", "the product never imports what tests and demos are made with"
        if top == "open_r1":
            assert folder_of(name) in {folder, *MAY_IMPORT[folder]}, f"{folder} may not import {name}"
        if when_imported:
            assert top not in NOT_WHEN_IMPORTED.get(folder, set()), f"{folder} may not load {top} when imported"


@pytest.mark.parametrize("path", [p for p in modules() if folder_of("open_r1." + p.parts[-2]) == "data"], ids=name_of)
def test_data_never_loads_torch(path: Path) -> None:
    assert not [name for name, _ in imports(path) if name.partition(".")[0] == "torch"]


@pytest.mark.slow
def test_modules_import_each_other_without_a_cycle() -> None:
    paths = [*modules(), *modules(TESTBED)]
    names = {".".join(path.relative_to(ROOT / "src").with_suffix("").parts): path for path in paths}
    edges = {name: {target for target, _ in imports(path) if target in names} - {name} for name, path in names.items()}
    settled: set[str] = set()
    while len(settled) < len(edges):
        ready = {name for name, needs in edges.items() if name not in settled and needs <= settled}
        assert ready, f"a cycle among {sorted(edges.keys() - settled)}"
        settled |= ready


def test_folders_hold_a_dozen_modules() -> None:
    folders = {path.parent for path in modules()}
    sizes = {name_of(folder): len([p for p in folder.glob("*.py") if p.name != "__init__.py"]) for folder in folders}
    assert {name: size for name, size in sizes.items() if size > MODULES_PER_FOLDER} == {}


def test_files_are_short() -> None:
    lines = {name_of(path): len(path.read_text().splitlines()) for path in [*modules(), *modules(TESTBED)]}
    longer = {name: count for name, count in lines.items() if count > LINES_PER_FILE}
    assert {name: count for name, count in longer.items() if count > LONGER_FILES.get(name, 0)} == {}
    assert longer.keys() == LONGER_FILES.keys(), "a file became short: take it out of LONGER_FILES"


def test_tests_lie_in_short_files() -> None:
    paths = [path for path in (ROOT / "tests").rglob("*.py") if path.is_file()]
    lines = {str(path.relative_to(ROOT / "tests")): len(path.read_text().splitlines()) for path in paths}
    assert {name: count for name, count in lines.items() if count > LINES_PER_FILE} == {}


@pytest.mark.slow
def test_functions_are_short() -> None:
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                assert length <= LINES_PER_FUNCTION, f"{name_of(path)}: {node.name} has {length} lines"


@pytest.mark.slow
def test_every_module_and_folder_says_what_it_is() -> None:
    paths = [*modules(), *modules(TESTBED)]
    assert [name_of(path) for path in paths if not ast.get_docstring(ast.parse(path.read_text()))] == []


LIGHT = (
    *("open_r1", "open_r1.grading.grader", "open_r1.vocabulary.prompts", "open_r1.rewards.registry"),
    *("open_r1.training.command_line.arguments", "open_r1.evaluation.answering.settings"),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHT)
def test_it_loads_without_any_library(name: str) -> None:
    heavy = sorted(LIBRARIES | {"numpy", "PIL"})
    code = f"import sys\nimport {name}\nprint(sorted(set({heavy!r}) & sys.modules.keys()))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_no_module_or_folder_bears_the_name_of_a_library() -> None:
    """`torchrun src/open_r1/x.py` puts that folder first on sys.path, where a `datasets.py` would win."""
    installed = set(metadata.packages_distributions()) | set(sys.stdlib_module_names)
    first_on_the_path = {path.stem for path in SOURCE.iterdir()} - {"__init__", "__pycache__"}
    assert first_on_the_path & installed == set()


def test_doors_are_short() -> None:
    for name in DOORS:
        assert len((SOURCE / name).read_text().splitlines()) <= 30


def test_no_path_of_one_machine_stands_in_the_code() -> None:
    pattern = re.compile(r"[\"'](/home/|/root/|/mnt/|/data/|/scratch|C:\\)")
    files = [*modules(), *modules(TESTBED), *(p for folder in COMMANDS for p in (ROOT / folder).glob("*.py"))]
    assert [path.name for path in files if pattern.search(path.read_text())] == []


@pytest.mark.slow
def test_requirements_are_exact_and_hold_what_the_code_imports() -> None:
    lines = (ROOT / "requirements.txt").read_text().split()
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", line) for line in lines)
    pinned = {line.split("==")[0] for line in lines}
    distributions = metadata.packages_distributions()
    needed = set()
    for path in modules():
        for name, _ in imports(path):
            top = name.partition(".")[0]
            if top != "open_r1" and top not in sys.stdlib_module_names:
                needed |= {d.lower().replace("_", "-") for d in distributions.get(top, [])}
    assert needed - {"flash-attn", "submitit"} <= pinned  # these are extras
