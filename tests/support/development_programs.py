"""Programs that the extra dev installs beside Python packages."""

import shutil
import sys
from pathlib import Path

import pytest


def development_program(name: str, package: str) -> str:
    """The path of a program, of this environment or else of the machine; without it the test is skipped.

    Args:
        name: of the program.
        package: of the extra dev that brings it.
    """
    program = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not here (it comes with the extra dev: {package})")
    return program
