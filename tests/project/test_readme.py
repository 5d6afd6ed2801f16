"""Every command that a README shows exists and takes the flags it is shown with."""

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from open_r1.training.command_line import parsing

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "data/README.md", "checkpoints/README.md"]


def commands(page: str) -> list[str]:
    """The lines of the page's shell blocks, continuation lines joined, comments left out."""
    found = []
    for block in re.findall(r"```(?:bash|sh)\n(.*?)```", (REPOSITORY / page).read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                found.append(shlex.join(words))
    return found


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
        module = load(REPOSITORY / script)
        with pytest.raises(SystemExit):
            (module.read_flags if hasattr(module, "read_flags") else module.main)()
    return set(re.findall(r"--[\w-]+", capsys.readouterr().out))


def test_the_pages_show_commands() -> None:
    assert {page for page, _ in ALL} == set(PAGES)
    assert len(ALL) >= 10


@pytest.mark.parametrize(("page", "command"), ALL, ids=[f"{page}: {command[:60]}" for page, command in ALL])
def test_command_exists(
    page: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        makefile = (REPOSITORY / "Makefile").read_text()
        assert all(re.search(rf"^{word}:", makefile, re.MULTILINE) for word in words[1:] if "=" not in word)
        return
    scripts = [word for word in words if word.endswith((".py", ".sh"))]
    modules = [words[i + 1] for i, word in enumerate(words) if word == "-m"]
    assert words[0] in {"python", "torchrun", "accelerate", "bash", "hf", "wandb"}, command
    assert all((REPOSITORY / script).is_file() for script in scripts), command
    assert all(importlib.util.find_spec(module) is not None for module in modules), command
    if scripts and scripts[0].endswith(".py"):
        own = [word for word in words[words.index(scripts[0]) :] if " " not in word]  # quoted flags are another's
        given = {word.split("=")[0] for word in own if word.startswith("--")}
        assert given <= flags_of(scripts[0], monkeypatch, capsys), command


def test_every_file_that_a_page_names_is_there() -> None:
    for page in PAGES:
        named = re.findall(
            r"`((?:src|eval|scripts|benchmarks|tests|recipes)/[\w./-]+\.\w+)`", (REPOSITORY / page).read_text()
        )
        assert [name for name in named if not (REPOSITORY / name).is_file()] == [], page
