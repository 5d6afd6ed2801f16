"""The study as a Snakefile: a rule to train, a rule to test what was trained, and the report of all."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from open_r1.study.planning.flags import StudyFlags
from open_r1.study.planning.plan import Plan


def snakefile(plan: Plan, selected: Plan, flags: StudyFlags, script: Path, arguments: Sequence[str]) -> str:
    """A Snakefile whose jobs run one item each with this command, which continues what was cut off.

    Files that are only marks say what is finished: Snakemake deletes the declared outputs of a job that was cut off,
    which would lose checkpoints and answers.

    Args:
        plan: the whole study.
        selected: the part that this command selects.
        flags: of this command.
        script: scripts/run_matrix.py.
        arguments: of this command.
    """
    position = next(k for k, word in enumerate(arguments) if word.startswith("--emit"))
    rest = arguments[position + (1 if "=" in arguments[position] else 2) :]
    command = shlex.join([sys.executable, str(script), *arguments[:position], *rest])
    names = {kind: [item.subject.name for item in selected.items if item.kind == kind] for kind in ("train", "test")}
    whole = "" if selected == plan else " (a part of it: the report is of what is complete)"
    return f"""# {len(selected.runs)} runs and {len(selected.cells)} cells of the study in {flags.output_dir}{whole}
#   snakemake --snakefile THIS_FILE --cores 2 --resources gpu={flags.nproc_per_node} --keep-going
workdir: {str(Path.cwd())!r}

STUDY = {command!r}
DONE = {str(flags.output_dir / ".snakemake_done")!r}
TRAINED = {names["train"]!r}
TESTED = {names["test"]!r}

localrules: report

rule report:
    input: [f"{{DONE}}/train-{{name}}" for name in TRAINED], [f"{{DONE}}/test-{{name}}" for name in TESTED]
    params: study=STUDY
    shell: "{{params.study}}"

rule train:
    output: touch(DONE + "/train-{{name}}")
    params: study=STUDY
    resources: gpu={flags.nproc_per_node}
    shell: "{{params.study}} --items train-{{wildcards.name}}"

rule test:
    input: lambda wildcards: [f"{{DONE}}/train-{{wildcards.name}}"] if wildcards.name in TRAINED else []
    output: touch(DONE + "/test-{{name}}")
    params: study=STUDY
    resources: gpu={flags.nproc_per_node}
    shell: "{{params.study}} --items test-{{wildcards.name}}"
"""
