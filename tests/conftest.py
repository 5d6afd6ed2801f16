"""Fixtures shared by the tests: no network, one thread, the real data where it is present."""

import importlib.util
import multiprocessing.process
import os
import resource
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Scripts that say `python` get this one, whether its environment is active (README) or not (make).
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

REPOSITORY = Path(__file__).resolve().parents[1]

PROCESS_EVENTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}
"""What Python reports to audit hooks when a process is started."""
SHORT_CHECKS = (["git"], [sys.executable, "-I", "-c"])
"""How the commands begin that the product itself runs, for milliseconds: git, and the check of a chat template."""


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that holds README.md."""
    return REPOSITORY


@pytest.fixture
def file_size_limit(capfd: pytest.CaptureFixture[str]) -> Callable[[int], AbstractContextManager[None]]:
    """`with file_size_limit(bytes):` no file may grow longer, which is as good as a disk that fills up.

    The limit is the whole process's: pytest's own output goes to a file of its own in this test (`capfd`), not to the
    end of a log that may be longer already, and outside the block there is no limit.
    """

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


def _is_importing() -> bool:
    """Whether a module is being imported: libraries look for others with `ldconfig` and a compiler then."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


class ProcessGuard:
    """Refuses every new process of this one while a test runs that is not marked slow."""

    def __init__(self) -> None:
        self.refusing = False
        sys.addaudithook(self.audit)
        start = multiprocessing.process.BaseProcess.start

        audit = self.audit

        def guarded_start(self: multiprocessing.process.BaseProcess) -> None:
            audit("multiprocessing", ())  # the method spawn starts a process without an event
            start(self)

        multiprocessing.process.BaseProcess.start = guarded_start

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python calls this with every event; only those that start processes matter."""
        if not self.refusing or event not in PROCESS_EVENTS | {"multiprocessing"}:
            return
        if event == "subprocess.Popen":
            command = [str(word) for word in arguments[1]]
            if any(command[: len(words)] == words for words in SHORT_CHECKS):
                return
        if _is_importing():
            return
        pytest.fail(f"a test that starts a process ({event}) must be marked @pytest.mark.slow")


GUARD = ProcessGuard()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Fixtures included: those of a module belong to the first test that uses them."""
    GUARD.refusing = item.get_closest_marker("slow") is None
    try:
        return (yield)
    finally:
        GUARD.refusing = False


def _process_state() -> dict[str, object]:
    """What belongs to the whole process and outlives a test that forgets it. Libraries set environment variables of
    their own once and for all, so the environment is not part of it."""
    umask = os.umask(0o077)
    os.umask(umask)
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return {
        "umask": umask,
        "working directory": os.getcwd(),
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in names},
        "signal handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
    }


@pytest.fixture(autouse=True)
def process_as_before() -> Iterator[None]:
    """A test leaves the process as it found it: a limit that outlives its test kills pytest or another test."""
    before = _process_state()
    yield
    assert _process_state() == before


@pytest.fixture(scope="session")
def real_dir() -> Path:
    """Real images, questions, split files and a real processor; they are no part of the repository."""
    folder = REPOSITORY.parent / "shared" / "real"
    if not folder.is_dir():
        pytest.skip(f"real data is not here ({folder}); it is not part of the repository")
    return folder


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], Any]:
    """Imports a command of the repository by its path, `eval/report.py`, without running it."""

    def load(name: str) -> Any:
        path = REPOSITORY / name
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
