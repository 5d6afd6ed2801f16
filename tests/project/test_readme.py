"""Every command that a page shows exists and takes the flags it is shown with; every link and path leads somewhere."""

import ast
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from open_r1.training.command_line import parsing

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = sorted(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md"))
PAGES = ["README.md", "data/README.md", "checkpoints/README.md", *DOCS]
WITHOUT_COMMANDS = {"docs/architecture.md", "docs/departures.md", "docs/models.md", "docs/troubleshooting.md"}
SUBJECTS = (
    *(
        "quickstart",
        "data",
        "training",
        "rewards",
        "evaluation",
        "text_path",
        "interruptions",
        "clusters",
        "gpus",
        "results",
    ),
    *("departures", "architecture", "troubleshooting", "contributing", "models"),
)


def commands(page: str) -> list[str]:
    """The lines of the page's shell blocks, continuation lines joined, comments left out."""
    commands = []
    for block in re.findall(r"```(?:bash|sh)\n(.*?)```", (REPOSITORY / page).read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                commands.append(shlex.join(words))
    return commands


ALL = [(page, command) for page in PAGES for command in commands(page)]


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def flags_of(script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The flags that a script's --help lists."""
    if script.startswith("src/open_r1/grpo"):
        with pytest.raises(SystemExit):
            parsing.parse(["--help"])
        # TRL's parser reads --config before it builds the flags, so its help does not list it
        return {"--config", *re.findall(r"--[\w-]+", capsys.readouterr().out)}
    else:
        monkeypatch.setattr("sys.argv", [script, "--help"])
        monkeypatch.syspath_prepend(str((REPOSITORY / script).parent))  # as `python SCRIPT` does
        module = load(REPOSITORY / script)
        with pytest.raises(SystemExit):
            (module.read_flags if hasattr(module, "read_flags") else module.main)()
    return set(re.findall(r"--[\w-]+", capsys.readouterr().out))


def test_the_pages_show_commands() -> None:
    assert {page for page, _ in ALL} == set(PAGES) - WITHOUT_COMMANDS
    assert len(ALL) >= 60


@pytest.mark.parametrize(("page", "command"), ALL, ids=[f"{page}: {command[:60]}" for page, command in ALL])
def test_command_exists(
    page: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        makefile = (REPOSITORY / "Makefile").read_text()
        assert all(re.search(rf"^{word}:", makefile, re.MULTILINE) for word in words[1:] if "=" not in word)
        return
    if words[0] in ("snakemake", "pip"):  # tests/slurm runs the first; the extra of the second is a pinned one
        assert words[1:] == ["install", ".[cluster]"] or words[1:3] == ["--snakefile", "Snakefile"], command
        return
    if words[0] == "source":
        assert words[1:] == [".venv/bin/activate"], command
        return
    if words[0] == "kubectl":
        assert words[1:3] == ["apply", "-f"], command
        assert (REPOSITORY / words[3]).is_file(), command
        return
    if words[0] == "sbatch":  # its options, the recipe, and the training command without a launcher
        recipe = next(number for number, word in enumerate(words) if word.endswith(".sbatch"))
        assert (REPOSITORY / words[recipe]).is_file(), command
        words = ["python", *words[recipe + 1 :]]
    scripts = [word for word in words if word.endswith((".py", ".sh"))]
    modules = [words[i + 1] for i, word in enumerate(words) if word == "-m"]
    assert words[0] in {"python", "torchrun", "accelerate", "bash", "hf", "wandb"}, command
    assert all((REPOSITORY / script).is_file() for script in scripts), command
    assert all(importlib.util.find_spec(module) is not None for module in modules), command
    if scripts and scripts[0].endswith(".py") and not scripts[0].startswith("docs/"):
        script_words = [
            word for word in words[words.index(scripts[0]) :] if " " not in word
        ]  # quoted flags are another's
        used_flags = {word.split("=")[0] for word in script_words if word.startswith("--")}
        assert used_flags <= flags_of(scripts[0], monkeypatch, capsys), command


def prose(page: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"```.*?```", "", (REPOSITORY / page).read_text(), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(str(page.relative_to(REPOSITORY))), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, "SECURITY.md"])
def test_every_file_that_a_page_names_is_there(page: str) -> None:
    names = re.findall(
        r"`((?:src|eval|scripts|benchmarks|tests|recipes|docs)/[\w./-]*|(?:data|checkpoints)/README\.md)`", prose(page)
    )
    assert [name for name in names if not (REPOSITORY / name).exists()] == []


@pytest.mark.parametrize("page", [*PAGES, "SECURITY.md"])
def test_every_link_within_the_repository_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (REPOSITORY / page).parent / path if path else REPOSITORY / page
        assert linked.is_file(), target
        assert not anchor or anchor in anchors(linked.resolve()), target


def test_the_readme_fits_on_a_page_and_leads_to_every_other() -> None:
    text = (REPOSITORY / "README.md").read_text()
    assert len(text.splitlines()) <= 100
    assert [page for page in DOCS if f"]({page})" not in text] == []
    assert {f"docs/{subject}.md" for subject in SUBJECTS} == set(DOCS)
    assert "not a medical device" in text


def test_the_flags_that_pages_name_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """In prose too; of the training commands those of the pages that are about nothing else."""
    with pytest.raises(SystemExit):
        parsing.parse(["--help_all"])
    known_flags = set(re.findall(r"--\w+", capsys.readouterr().out)) | {"--config", "--help", "--help_all"}
    for page in ("docs/training.md", "docs/rewards.md", "docs/gpus.md"):
        other_scripts_flags = set() if page != "docs/gpus.md" else {"--gpu", "--backend"}
        assert set(re.findall(r"(?<![\w-])--[a-z]\w+", prose(page))) - known_flags - other_scripts_flags == set(), page


def test_the_table_of_folders_is_the_one_that_is_tested() -> None:
    table = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", prose("docs/architecture.md"), re.MULTILINE)
    allowed = {folder: set(re.findall(r"\w+", names)) for folder, names in table}
    assert allowed == load(Path(__file__).with_name("test_layout.py")).MAY_IMPORT


def test_the_glossary_holds_each_word_once() -> None:
    words = re.findall(r"^\| ([a-z ]+) \| ", prose("docs/architecture.md"), re.MULTILINE)
    expected = [
        "image",
        "row",
        "prompt",
        "completion",
        "group",
        "answer",
        "grade",
        "outcome",
        "result",
        "checkpoint",
        "adapter",
    ]
    assert [word for word in [*expected, "run record"] if words.count(word) != 1] == []


def texts_in(path: Path) -> Iterator[str]:
    """The texts of a module, what an f-string fills in as a star."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "*" for part in node.values)  # type: ignore
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.slow
def test_the_messages_that_troubleshooting_explains_are_said() -> None:
    """By their pieces between names and numbers, which are in capitals or quotes there."""
    source_texts = "\n".join(text for path in (REPOSITORY / "src/open_r1").rglob("*.py") for text in texts_in(path))
    source_texts += (REPOSITORY / "setup.sh").read_text()
    torchrun = importlib.util.find_spec("torch.distributed.run")
    assert torchrun is not None
    source_texts += Path(str(torchrun.origin)).read_text()
    cells = re.findall(r"^\| (`.*?) \| ", prose("docs/troubleshooting.md"), re.MULTILINE)
    pieces = [
        piece.strip(" ,:")
        for cell in cells
        for message in re.findall(r"`([^`]+)`", cell)
        for piece in re.split(r"\.\.\.|'\w+'|\b[A-Z]+\b|--\w+|run\.json|config\.json|\b\d+ %", message)
    ]
    long = [piece for piece in pieces if len(piece) > 8]
    assert len(long) > 40
    assert [piece for piece in long if piece not in source_texts] == []


def test_what_others_need_to_use_and_cite_it_is_there() -> None:
    licence = (REPOSITORY / "LICENSE").read_text()
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    assert "cff-version" in (REPOSITORY / "CITATION.cff").read_text()
