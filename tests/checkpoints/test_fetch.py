"""`python -m open_r1.checkpoints fetch`, against a hub on this machine: whole, checked, continued, and no pickles."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from local_hub import LocalHub
from safetensors.numpy import save

from open_r1.vocabulary.releases import HUB_REPOSITORY, matrix

SIZE = 26_000_000  # bytes of weights; the hub's client writes them down 10 MiB at a time
Run = Callable[..., subprocess.CompletedProcess[str]]


def weights(seed: int, size: int = SIZE) -> bytes:
    random = np.random.default_rng(seed)
    return save({"weight": random.standard_normal(size // 4).astype(np.float32)}, {"format": "pt"})


def checkpoint(folder: str, data: bytes) -> dict[str, bytes]:
    texts = {"config.json": b'{"model_type": "qwen2_vl"}', "merges.txt": b"a b\n", "chat_template.jinja": b"{{ x }}"}
    ignored = {"optimizer.pt": b"pickle", "modeling.py": b"import os", "checkpoint-200/config.json": b"{}"}
    return {f"{folder}/{name}": content for name, content in {**texts, **ignored, "model.safetensors": data}.items()}


def environment(hub: LocalHub | None, home: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    clean |= {
        "HF_HOME": str(home),
        "HF_TOKEN": "hf_secret",
    }
    return clean | {"HF_ENDPOINT": hub.url if hub else "http://127.0.0.1:9"}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "open_r1.checkpoints", "fetch", *words]


@pytest.fixture
def fetch(tmp_path: Path) -> Run:
    def run(hub: LocalHub | None, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*words),
            cwd=tmp_path,
            env=environment(hub, tmp_path / "home") | variables,
            capture_output=True,
            text=True,
            timeout=1800,
        )

    return run


def error_of(process: subprocess.CompletedProcess[str]) -> str:
    """The one line of a failure."""
    assert process.returncode == 2, process.stderr[-2000:]
    assert "Traceback" not in process.stderr
    return process.stderr.strip().splitlines()[-1]


NAME = f"{HUB_REPOSITORY}:VQA_CT"


@pytest.mark.slow
def test_one_checkpoint_comes_whole_and_nothing_else_of_its_repository(fetch: Run, tmp_path: Path) -> None:
    data = weights(1)
    files = checkpoint("VQA_CT", data) | checkpoint("VQA_MRI", weights(2, 1000))
    with LocalHub({HUB_REPOSITORY: files}) as hub:
        process = fetch(hub, NAME, TQDM_POSITION="-1")  # which shows bars without a terminal, too
        assert process.returncode == 0, process.stderr[-2000:]
        assert f"{NAME}: 26.00 MB in 4 files, weights complete (1 safetensors), at home/hub/models--" in process.stdout
        assert "100%" in process.stderr, "no progress bar"
        assert "model.safetensors" in process.stderr
        folder = next((tmp_path / "home" / "hub").glob("models--*/snapshots/*/VQA_CT"))
        names = sorted(path.name for path in folder.iterdir())
        assert names == ["chat_template.jinja", "config.json", "merges.txt", "model.safetensors"]
        assert (folder / "model.safetensors").read_bytes() == data
        fetched = {request.path.rsplit("/", 1)[-1] for request in hub.requests}
        assert not fetched & {"optimizer.pt", "modeling.py", "checkpoint-200"}
        # the token is for the hub, not for the host that it sends us to
        assert {request.authorization for request in hub.requests if request.host == "localhost"} == {None}
        bare = [r for r in hub.requests if "/resolve/" in r.path and r.authorization != "Bearer hf_secret"]
        assert bare == []

        hub.requests.clear()
        again = fetch(hub, NAME)
        assert again.returncode == 0
        assert hub.sent("") < 5000, "what is here was fetched again"
    offline = fetch(None, NAME, HF_HUB_OFFLINE="1")
    assert "weights complete" in offline.stdout


@pytest.mark.slow
def test_cut_connections_cost_nothing_that_had_arrived(fetch: Run, tmp_path: Path) -> None:
    data = weights(3)
    with LocalHub({HUB_REPOSITORY: checkpoint("VQA_CT", data)}, cuts=2, cut_after=12_000_000) as hub:
        process = fetch(hub, NAME, "--local_dir", "here")
        assert process.returncode == 0, process.stderr[-2000:]
        starts = [request.start for request in hub.requests if "/cdn/" in request.path]
        assert starts == [None, 10 << 20, 20 << 20]  # whole blocks of 10 MiB are kept
    assert (tmp_path / "here" / "VQA_CT" / "model.safetensors").read_bytes() == data
    assert not list((tmp_path / "here" / "VQA_CT").glob(".*"))
    assert "at here/VQA_CT" in process.stdout


@pytest.mark.slow
@pytest.mark.parametrize("place", [(), ("--local_dir", "here")], ids=["cache", "local_dir"])
def test_a_killed_fetch_goes_on_where_it_stopped(fetch: Run, tmp_path: Path, place: tuple[str, ...]) -> None:
    data = weights(4)
    with LocalHub({HUB_REPOSITORY: checkpoint("VQA_CT", data)}, stall_after=22 << 20) as hub:
        first_process = subprocess.Popen(
            command(NAME, *place),
            cwd=tmp_path,
            env=environment(hub, tmp_path / "home"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 600
        while not [p for p in tmp_path.rglob(".*.part") if p.stat().st_size >= 20 << 20]:
            assert time.monotonic() < deadline, hub.requests
            time.sleep(0.05)
        first_process.kill()
        first_process.wait()
        hub.stall_after = None
        hub.requests.clear()
        process = fetch(hub, NAME, *place)
        assert process.returncode == 0, process.stderr[-2000:]
        assert [r.start for r in hub.requests if "/cdn/" in r.path] == [20 << 20], (process.stdout, hub.requests)
        assert "VQA_CT/model.safetensors: resuming after 20.97 MB of 26.00 MB" in process.stdout
    assert next(tmp_path.rglob("model.safetensors")).read_bytes() == data
    assert not list(tmp_path.rglob(".*.part"))


@pytest.mark.slow
def test_a_hub_that_goes_away_is_one_line_and_what_arrived_is_kept(fetch: Run, tmp_path: Path) -> None:
    files = {"config.json": b"{}", "model.safetensors": weights(5)}
    with LocalHub({"org/repo": files}, cuts=99, cut_after=1 << 20) as hub:  # less than the 10 MiB that are written
        message = error_of(fetch(hub, "org/repo"))
    assert message.startswith("error: the connection broke while fetching org/repo")
    assert "the part that was fetched is kept" in message


@pytest.mark.slow
def test_bytes_that_are_not_the_hubs_are_refused_and_removed(fetch: Run, tmp_path: Path) -> None:
    files = checkpoint("VQA_CT", weights(7, 100_000))
    with LocalHub({HUB_REPOSITORY: files}, damaged={"VQA_CT/model.safetensors"}) as hub:
        message = error_of(fetch(hub, NAME))
        assert "VQA_CT/model.safetensors was damaged in the download" in message
        assert not list(tmp_path.rglob("*.part"))
        hub.damaged.clear()
        assert fetch(hub, NAME).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"config.json": b"{}", "pytorch_model.bin": b"pickle"},
            "only as pytorch_model.bin: a pickle can run any code",
        ),
        ({"adapter_config.json": b"{}", "adapter_model.bin": b"pickle"}, "only as adapter_model.bin: a pickle can run"),
        ({"config.json": b"{}"}, "org/repo holds JSON but no weights"),
        ({"config.json": b"{}", "model.safetensors": b"\x10\0\0\0\0\0\0\0short"}, "is cut off or no safetensors file"),
    ],
    ids=["pickle", "adapter pickle", "no weights", "broken on the hub"],
)
def test_what_is_no_checkpoint_is_refused(fetch: Run, files: dict[str, bytes], message: str) -> None:
    with LocalHub({"org/repo": files}) as hub:
        assert message in error_of(fetch(hub, "org/repo"))
        assert not [request for request in hub.requests if request.path.endswith((".bin", ".pt"))]


@pytest.mark.slow
def test_names_that_lead_nowhere(fetch: Run) -> None:
    with LocalHub({HUB_REPOSITORY: checkpoint("VQA_CT", weights(8, 1000))}) as hub:
        unknown = error_of(fetch(hub, f"{HUB_REPOSITORY}:VQA_XRay"))
        assert f"{HUB_REPOSITORY} has no folder VQA_XRay; known are:" in unknown
        assert "org/none is not on the hub, or private" in error_of(fetch(hub, "org/none"))
        assert "holds no model; name one of its folders, or all with --all" in error_of(fetch(hub, HUB_REPOSITORY))
    assert "nothing to fetch" in error_of(fetch(None))
    assert "'here' is not a name on the hub" in error_of(fetch(None, "here"))


@pytest.mark.slow
def test_without_a_network_one_line_says_so(fetch: Run) -> None:
    for variables in ({}, {"HF_HUB_OFFLINE": "1"}):
        message = error_of(fetch(None, NAME, **variables))
        assert "the hub cannot be reached" in message
        assert f"python -m open_r1.checkpoints fetch {NAME}" in message


@pytest.mark.slow
def test_all_fetches_the_released_ones_and_names_what_is_not_there(fetch: Run, tmp_path: Path) -> None:
    runs = matrix()
    absent = runs[-1]
    files: dict[str, bytes] = {}
    for place, run in enumerate(runs[:-1]):
        files |= checkpoint(run.subfolder, weights(place, 1000))
    with LocalHub({HUB_REPOSITORY: files}) as hub:
        process = fetch(hub, "--all", "--local_dir", "all")
    assert error_of(process) == f"error: 1 of 26 could not be fetched: {absent.checkpoint}"
    assert f"skipped: {HUB_REPOSITORY} has no folder {absent.subfolder}" in process.stdout
    assert "25 checkpoints: 0.03 MB, 0.03 MB to fetch" in process.stdout
    assert process.stdout.count("weights complete") == 25
    assert len(list((tmp_path / "all").rglob("model.safetensors"))) == 25


def test_a_disk_without_room_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    from open_r1.checkpoints.hub import require_room
    from open_r1.common.errors import UserError

    with pytest.raises(UserError, match=r"900000000\.00 GB are to be fetched and .* free at .*--local_dir"):
        require_room(900_000_000 * 10**9, tmp_path)
    require_room(1, tmp_path)
