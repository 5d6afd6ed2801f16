"""A whole study on phantoms with a tiny model, and whether two of them came to the same end."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from open_r1.common.atomic_files import sha256_file
from open_r1.common.errors import UserError
from open_r1.evaluation.scoring.results import read_results
from open_r1.vocabulary.labels import Modality
from open_r1_testbed.demo_steps import ENVIRONMENT
from open_r1_testbed.phantoms import make_phantoms
from open_r1_testbed.tiny_models import TINY_BASE


@dataclass(frozen=True)
class PhantomStudy:
    """What the study trains.

    Args:
        modalities: 4 make 4 runs and 16 cells.
        max_steps: optimizer steps of each run.
        save_steps: between full checkpoints; 0 saves none.
        processes: of each run.
        seed: of the phantoms and the training.
        rewards: instead of the published ones.
    """

    modalities: int = 4
    max_steps: int = 6
    save_steps: int = 2
    processes: int = 1
    seed: int = 0
    rewards: str = ""

    def prepare(self, scripts: Path, folder: Path) -> list[str]:
        """Draw and prepare the data in a folder; the study's command without its output folder.

        Raises:
            UserError: the data could not be prepared.
        """
        phantoms, data = folder / "phantoms", folder / "data"
        make_phantoms(phantoms, 6, 3, self.seed, list(Modality)[: self.modalities])
        make = [sys.executable, str(scripts / "prepare_omnimedvqa.py"), "--splits_dir", str(phantoms / "splits")]
        make += ["--image_root", str(phantoms), "--output_dir", str(data), "--by", "modality", "--num_workers", "1"]
        process = subprocess.run(make, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
        if process.returncode:
            raise UserError(f"the phantoms could not be prepared: {process.stderr.strip()[-500:]}")
        saving = f"--save_steps {self.save_steps}" if self.save_steps else "--save_strategy no"
        training = f"--reward_funcs {self.rewards} " if self.rewards else ""
        training += (
            f"--max_steps {self.max_steps} --num_generations 8 --max_completion_length 8 "
            f"--per_device_train_batch_size 4 --learning_rate 1e-4 --logging_steps 1 --seed {self.seed} {saving}"
        )
        return [
            *(sys.executable, str(scripts / "run_matrix.py"), "--base", str(TINY_BASE), "--data", str(data)),
            *("--modes", "nothink", "--by", "modality", "--no-zero_shot", "--nproc_per_node", str(self.processes)),
            *("--train_args", training, "--infer_args", "--max_new_tokens 8 --batch_size 16"),
        ]


def differences_of(undisturbed: Path, disturbed: Path) -> list[str]:
    """What differs between two finished studies; prints a line for each kind of thing that was compared."""
    differences = []
    for kind, content_of in (("trained weights", _weights), ("answers", _answers), ("report tables", _tables)):
        expected, actual = content_of(undisturbed), content_of(disturbed)
        differing = [name for name in sorted(expected.keys() | actual.keys()) if expected.get(name) != actual.get(name)]
        print(f"{kind}: {len(expected)} compared, {len(expected) - len(differing)} equal", flush=True)
        differences += [f"{kind}: {name}" for name in differing]
        if not expected:
            differences.append(f"{kind}: there are none to compare")
    weights = _weights(undisturbed)
    if len(set(weights.values())) < len(weights):
        differences.append(f"some runs of {undisturbed} ended with the same weights, so there was nothing to lose")
    return differences


def _weights(study: Path) -> dict[str, str]:
    return {str(path.relative_to(study)): sha256_file(path) for path in study.glob("runs/*/*.safetensors")}


def _answers(study: Path) -> dict[str, object]:
    answers = {}
    for path in study.glob("cells/*/*.jsonl"):
        for result in read_results(path).results:
            name = f"{path.relative_to(study)}: {result.id}"
            answers[name] = (result.output, result.outcome, result.letter, result.blind, result.seen)
    return answers


def _tables(study: Path) -> dict[str, str]:
    tables = {path.name: path.read_text() for path in (study / "report").glob("*.csv")}
    summary = (study / "report" / "summary.md").read_text().partition("\n## How ")[0]
    log = {path.parent.name: _losses(path) for path in study.glob("runs/*/trainer_state.json")}
    return tables | {"summary.md": summary} | {f"{name}: logged losses": value for name, value in log.items()}


def _losses(state: Path) -> str:
    history = json.loads(state.read_text())["log_history"]
    return shlex.join(f"{entry['step']}:{entry['loss']}" for entry in history if "loss" in entry)
