"""The house stands: imports go only to lower floors, low floors stay light, no file shadows a library."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "open_r1"
COMMANDS = ("eval", "scripts", "benchmarks")

FLOORS: list[set[str]] = [
    {
        *{"errors", "runs", "prompts", "answers", "answer_texts", "claims", "rewards", "provenance"},
        *{"reward_settings", "text_rewards", "old_keys", "curriculum", "vllm_extra", "durations"},
        *{
            "arguments",
            "command_line",
            "data_names",
            "library_flags",
            "training_help",
            "redaction",
            "trl_options",
            "launcher",
            "full_disk",
        },
    },
    {
        *{"files", "images", "arrow_sets", "picture_pack", "omnimedvqa", "vqa_questions", "vqa_splits"},
        *{"vqa_prepare", "vqa_report", "vqa_data", "checkpoints", "weights"},
        *{"checkpoint_checks", "chat_templates", "adapter_names"},
        *{"hub_fetch", "checkpoint_names", "checkpoint_files", "processors", "fetch_command", "metrics_file"},
        *{"text_files", "text_sources", "text_prepare", "saving"},
    },
    {
        *{
            "config",
            "training_flags",
            "shared_prefix",
            "rollout",
            "pictures",
            "scored_groups",
            "packed_scoring",
            "micro_batches",
            "resampling",
            "verification",
            "grpo_options",
            "trial_pass",
            "trainable",
            "foresight",
        },
        *{"prompt_limit", "step_meter", "trainer", "launch", "running", "training_rows", "sft_training", "evaluation"},
        *{"ordered_sampler", "difficulty", "durable", "guards", "resuming", "continuing", "readable_rows"},
        *{"sharding", "tracking", "model_card", "publishing", "markdown_text", "starting_model", "read_back"},
    },
    {
        *{"grpo", "grpo_vqa", "grpo_vqa_nothink", "sft", "sft_vqa"},
        *{
            "phantoms",
            "riddles",
            "tiny_models",
            "tiny_gemma",
            "format_start",
            "first_reading",
            "demo_steps",
            "demo_report",
        },
        *{"forked_runs", "chaos", "chaos_faults", "study"},
    },
]
HEAVY = {"torch", "trl", "transformers", "datasets", "accelerate", "peft", "deepspeed", "wandb", "matplotlib"}
FORBIDDEN_AT_MODULE_LEVEL = [HEAVY | {"PIL", "numpy", "huggingface_hub"}, {"trl", "accelerate", "peft", "deepspeed"}]


def room(path: Path) -> str:
    """The name a file is known by in FLOORS: its own, or its package's."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def floor(name: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if name in rooms)


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def imports(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """(dotted name, whether it runs when the module is imported)."""
    lazy = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) not in lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, id(node) not in lazy


def test_every_module_has_a_floor() -> None:
    assert {room(path) for path in modules()} == set().union(*FLOORS)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_only_to_the_same_or_a_lower_floor(path: Path) -> None:
    level = floor(room(path))
    for name, at_module_level in imports(ast.parse(path.read_text())):
        top, _, rest = name.partition(".")
        if top == "open_r1" and rest:
            assert floor(rest.split(".")[0]) <= level, f"{path.name} on floor {level} imports {name}"
        if at_module_level and level < len(FORBIDDEN_AT_MODULE_LEVEL):
            assert top not in FORBIDDEN_AT_MODULE_LEVEL[level], f"{path.name} on floor {level} imports {name}"


def test_modules_import_each_other_without_a_cycle() -> None:
    edges = {
        path.relative_to(SOURCE).as_posix(): {
            name.removeprefix("open_r1.").replace(".", "/") + ".py"
            for name, _ in imports(ast.parse(path.read_text()))
            if name.startswith("open_r1.")
        }
        for path in modules()
    }
    settled: set[str] = set()
    while len(settled) < len(edges):
        ready = {m for m, needs in edges.items() if m not in settled and (needs & edges.keys()) <= settled}
        assert ready, f"a cycle among {sorted(edges.keys() - settled)}"
        settled |= ready


def test_the_grader_and_the_prompts_load_without_any_library() -> None:
    code = (
        "import sys\nimport open_r1.grading.grader, open_r1.vocabulary.prompts, open_r1.rewards.registry, open_r1.vocabulary.labels\n"
        f"print(sorted({sorted(HEAVY | {'numpy', 'PIL'})!r} & sys.modules.keys()))"
    ).replace(f"{sorted(HEAVY | {'numpy', 'PIL'})!r}", f"set({sorted(HEAVY | {'numpy', 'PIL'})!r})")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_file_bears_the_name_of_a_library() -> None:
    """`torchrun src/open_r1/x.py` puts that folder first on sys.path, where a `datasets.py` would win."""
    installed = {name for names in [metadata.packages_distributions()] for name in names} | set(sys.stdlib_module_names)
    assert {path.stem for path in SOURCE.glob("*.py")} - {"__init__"} & installed == set()


def test_entries_are_short() -> None:
    for name in ("grpo.py", "grpo_vqa.py", "grpo_vqa_nothink.py", "sft.py", "sft_vqa.py"):
        assert len((SOURCE / name).read_text().splitlines()) <= 30


def test_no_path_of_one_machine_stands_in_the_code() -> None:
    pattern = re.compile(r"[\"'](/home/|/root/|/mnt/|/data/|/scratch|C:\\)")
    root = SOURCE.parents[1]
    files = [*modules(), *(p for folder in COMMANDS for p in (root / folder).glob("*.py"))]
    assert [path.name for path in files if pattern.search(path.read_text())] == []


def test_requirements_are_exact_and_hold_what_the_code_imports() -> None:
    lines = (SOURCE.parents[1] / "requirements.txt").read_text().split()
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", line) for line in lines)
    pinned = {line.split("==")[0] for line in lines}
    distributions = metadata.packages_distributions()
    needed = set()
    for path in modules():
        for name, _ in imports(ast.parse(path.read_text())):
            top = name.partition(".")[0]
            if top != "open_r1" and top not in sys.stdlib_module_names:
                needed |= {d.lower().replace("_", "-") for d in distributions.get(top, [])}
    assert needed - {"flash-attn"} <= pinned
