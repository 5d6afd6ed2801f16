"""The table of library names that may change without notice: true of the installed versions, complete, nothing dead."""

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from library_uses import (
    attributes,
    attributes_of,
    is_private,
    modules,
    overrides,
    private_names_of_libraries,
    resolve,
)
from seams import OVERRIDES, READS, SEAMS, Seam
from trl import GRPOTrainer, SFTTrainer

LIBRARIES = {
    *("torch", "transformers", "trl", "accelerate", "peft", "deepspeed", "datasets"),
    *("PIL", "huggingface_hub", "safetensors", "tqdm"),
}


def signature_of(value: Any) -> str:
    """Names of the parameters, with stars and with `=` where there is a default."""
    function: Any = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return ", ".join(
        stars.get(parameter.kind, "") + name + ("" if parameter.default is parameter.empty else "=")
        for name, parameter in inspect.signature(function).parameters.items()
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "seam",
    # deepspeed starts a compiler when it is imported
    [pytest.param(seam, marks=[pytest.mark.slow] * seam.owner.startswith("deepspeed")) for seam in SEAMS],
    ids=[f"{seam.owner.rpartition('.')[2]}.{seam.name}" for seam in SEAMS],
)
def test_the_installed_library_has_it(seam: Seam) -> None:
    owner = resolve(seam.owner)
    if seam.signature is not None:
        assert signature_of(vars(owner)[seam.name]) == seam.signature
    elif isinstance(owner, type):
        assert seam.name in attributes_of(owner)
    else:
        assert hasattr(owner, seam.name)


def test_every_override_is_in_the_table_and_every_override_of_the_table_exists() -> None:
    assert overrides() == {(seam.owner, seam.name) for seam in OVERRIDES}


@pytest.mark.slow
def test_every_private_name_of_a_library_is_in_the_table() -> None:
    used = private_names_of_libraries() - {seam.name for seam in OVERRIDES}
    assert used == {seam.name for seam in READS if is_private(seam.name)}


@pytest.mark.slow
def test_every_name_of_the_table_is_used() -> None:
    assert {seam.name for seam in READS} - attributes() == set()


def test_training_args_are_saved_from_an_attribute_of_the_trainer() -> None:
    """`Durable._save` puts a copy without secrets there."""
    for trainer in (GRPOTrainer, SFTTrainer):
        assert "torch.save(self.args," in inspect.getsource(trainer._save)


REGISTERED = {
    "transformers.modeling_utils.AttentionInterface._global_mapping",
    "transformers.masking_utils.AttentionMaskInterface._global_mapping",
}
"""Where an import of ours registers the attention `shared_prefix` under a name of its own."""


@pytest.mark.slow
def test_importing_our_modules_changes_nothing_of_other_libraries() -> None:
    ours = modules()
    for name in ours:
        importlib.import_module(name)
    libraries = [name for name in sys.modules if name.partition(".")[0] in LIBRARIES]
    program = Path(__file__).parents[1] / "support" / "import_effects.py"
    run = subprocess.run(
        [sys.executable, program],
        input=json.dumps({"libraries": libraries, "ours": ours}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(json.loads(run.stdout.splitlines()[-1])) == REGISTERED
