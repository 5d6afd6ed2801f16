"""Preparation against a bare loop: `python benchmarks/prepare.py`, a few minutes.

Speed: a bare single-process loop (decode, resize, encode, forget) and the whole preparation (read, check, draw,
encode in processes, write, hash, manifest) run over the same files in turn; medians of the rounds, in images
per second, with the CPU time beside. The claim: at least 0.9 x processes x the bare rate.

Memory: the largest resident set of the preparing process and of its largest worker, for 1,000 and 20,000
questions on as many images, each in a process of its own. The claim: it stays flat.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from io import BytesIO
from pathlib import Path
from statistics import median

from PIL import Image

from open_r1.common.command_line import CommandParser
from open_r1.common.errors import run_command

SIDES = ((512, 512), (1024, 768), (640, 480), (299, 299))  # pixels; as medical sets have them


def draw_images(folder: Path, count: int, sides: tuple[tuple[int, int], ...] = SIDES) -> list[Path]:
    """Smooth structure with fine noise: costs about as much to decode and encode as a photograph.

    Every other image is grey: four in five of OmniMedVQA's questions are about modalities without colour.
    """
    import numpy as np  # here, because every worker process loads this file again

    rng = np.random.default_rng(0)
    paths = []
    folder.mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        size = sides[number % len(sides)]
        values = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
        values = values + rng.integers(-6, 7, values.shape)
        paths.append(folder / f"{number:05d}.{'jpg' if number % 3 else 'png'}")
        image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
        (image if number % 2 else image.convert("L")).save(paths[-1])
    return paths


def make_release(folder: Path, rows: int, distinct: int, sides: tuple[tuple[int, int], ...] = SIDES) -> Path:
    """A release with one question for each of `rows` image files, of which `images` differ."""
    drawn = draw_images(folder / "drawn", min(rows, distinct), sides)
    images = folder / "Images" / "Bench"
    images.mkdir(parents=True)
    entries = []
    for number in range(rows):
        source = drawn[number % len(drawn)]
        path = images / f"{number:06d}{source.suffix}"
        os.link(source, path)
        entries.append(
            {
                "dataset": "Bench",
                "question_type": "Modality Recognition",
                "modality_type": "Microscopy Images",
                "question": f"Which imaging technique produced image {number}?",
                "gt_answer": "Microscopy",
                "option_A": "Microscopy",
                "option_B": "Magnetic resonance imaging (MRI)",
                "option_C": "Positron emission tomography (PET)",
                "option_D": "Ultrasound",
                "image_path": str(path.relative_to(folder)),
            }
        )
    questions = folder / "QA_information" / "Open-access"
    questions.mkdir(parents=True)
    (questions / "Bench.json").write_text(json.dumps(entries))
    return folder


def bare_loop(paths: list[Path]) -> None:
    """What has to be done for each image, and nothing else."""
    for path in paths:
        with Image.open(path) as image:
            small = image.convert("RGB").resize((384, 384), Image.Resampling.BICUBIC)
        small.save(BytesIO(), "PNG", compress_level=1)


def prepare_once(release: Path, output: Path, workers: int) -> None:
    """The whole preparation, one set."""
    from open_r1.data.omnimedvqa.prepare import Preparation, prepare
    from open_r1.vocabulary.labels import Modality

    prepare(Preparation(output, release=release, only=(Modality.MICROSCOPY,), num_workers=workers))


def cpu_seconds() -> float:
    """CPU time of this process and of its finished children."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def timed(work, *arguments) -> tuple[float, float]:
    """Wall and CPU seconds of a call."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    work(*arguments)
    return time.perf_counter() - wall, cpu_seconds() - cpu


def speed(scratch: Path, count: int, rounds: int, workers: int) -> None:
    """Print the medians of bare loop and preparation, run in turn."""
    release = make_release(scratch / "speed", count, count)
    paths = sorted((release / "Images" / "Bench").iterdir())
    bare_loop(paths[:20])
    prepare_once(make_release(scratch / "warm", 20, 20), scratch / "warm_out", workers)
    bare, ours = [], []
    for number in range(rounds):
        bare.append(timed(bare_loop, paths))
        ours.append(timed(prepare_once, release, scratch / f"out{number}", workers))
        shutil.rmtree(scratch / f"out{number}")
        print(f"round {number}: bare {bare[-1][0]:.1f} s, prepared {ours[-1][0]:.1f} s", flush=True)
    (bare_wall, bare_cpu), (our_wall, our_cpu) = (
        tuple(map(median, zip(*usage, strict=True))) for usage in (bare, ours)
    )
    print(f"{count} images, {workers} processes, medians of {rounds} rounds in turn")
    print(f"  bare loop, one process: {count / bare_wall:6.1f} images/s, {1000 * bare_cpu / count:.1f} ms CPU each")
    print(f"  preparation:            {count / our_wall:6.1f} images/s, {1000 * our_cpu / count:.1f} ms CPU each")
    ratio = bare_wall / our_wall / workers
    print(f"  preparation / ({workers} x bare) = {ratio:.3f} by wall time, {bare_cpu / our_cpu:.3f} by CPU time")


def peak_memory(release: Path, output: Path, workers: int) -> tuple[float, float]:
    """Largest resident set in MB of a process that prepares `release`, and of its largest worker."""
    command = [sys.executable, __file__, "--measure", str(release), str(output), str(workers)]
    process = subprocess.run(command, check=True, capture_output=True, text=True)
    parent, worker = json.loads(process.stdout)
    return parent, worker


def memory(scratch: Path, workers: int, counts: tuple[int, ...] = (1000, 20000)) -> None:
    """Print the peak memory for each number of questions."""
    for count in counts:
        release = make_release(scratch / f"memory{count}", count, 100, ((96, 96), (640, 480)))
        parent, worker = peak_memory(release, scratch / f"memory{count}_out", workers)
        shutil.rmtree(scratch / f"memory{count}_out")
        print(
            f"{count:6d} questions: {parent:.0f} MB in the preparing process, {worker:.0f} MB in a worker", flush=True
        )


def high_water(process: str) -> float:
    """Largest resident set of a process so far, in MB; 0 if it is gone. (`ru_maxrss` would count its parent's.)"""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


def measure(release: str, output: str, workers: str) -> None:
    """In a process of its own: prepare while a thread watches the workers, then print the peaks as JSON."""
    peaks: dict[str, float] = {}  # the latest reading of each: before its exec a child looks like its parent
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(0.05):
            for children in Path("/proc/self/task").glob("*/children"):
                peaks.update(
                    {child: high_water(child) or peaks.get(child, 0) for child in children.read_text().split()}
                )

    watcher = threading.Thread(target=watch)
    watcher.start()
    prepare_once(Path(release), Path(output), int(workers))
    finished.set()
    watcher.join()
    print(json.dumps([high_water("self"), max(peaks.values(), default=0)]))


def main() -> None:
    """Measure speed, then memory."""
    parser = CommandParser(description="preparation against a bare decode-resize-encode loop")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num_workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", choices=["speed", "memory"])
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(*args.measure)
        return
    with tempfile.TemporaryDirectory() as scratch:
        if args.only != "memory":
            speed(Path(scratch), args.images, args.rounds, args.num_workers)
        if args.only != "speed":
            memory(Path(scratch), args.num_workers)


if __name__ == "__main__":
    run_command(main)
