"""Preparation against a bare loop: `python benchmarks/prepare.py`, a few minutes; and many files with `--only files`.

Speed: a bare single-process loop (decode, resize, encode, forget) and the whole preparation (read, check, draw,
encode in processes, write, hash, manifest) run over the same files in turn; medians of the rounds, in images
per second, with the CPU time beside. The claim: at least 0.9 x processes x the bare rate.

Memory: the largest resident set of the preparing process and of its largest worker, for 1,000 and 20,000
questions on as many images, each in a process of its own. The claim: it stays flat.

Files (`--only files --files 25000 200000`): scripts/prepare_vqa.py itself on small files in SLAKE's form, of each size
in turn: memory, CPU time, disk, and the bytes of memory that a further question takes. `--kills 3` starts the last of
them again and kills it three times, after more and more of its time, and compares the sets.
"""

import argparse
import json
import os
import resource
import shutil
import signal
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
from open_r1.common.errors import UserError, run_command

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


def make_vqa(folder: Path, files: int) -> Path:
    """SLAKE's JSON over `files` small images in folders of 1,000.

    Every fourth image has a second question, every twentieth is a copy of the one before it, every thousandth question
    is of validation and every five-hundredth of test.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    rows: dict[str, list[dict]] = {"train": [], "validation": [], "test": []}
    for number in range(files):
        name = f"part{number // 1000:04d}/{number:07d}.{'png' if number % 3 else 'jpg'}"
        path = folder / "imgs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 20 == 19:
            os.link(folder / "imgs" / rows["train"][-1]["img_name"], path)
        else:
            coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            coarse.resize((48, 48), Image.Resampling.BILINEAR).save(path)
        split = "validation" if number % 1000 == 500 else "test" if number % 500 == 250 else "train"
        for question in range(2 if number % 4 == 0 else 1):
            asked = f"Does image {number} show sign {question} of what was asked about in the report?"
            row = {"img_name": name, "question": asked, "answer": "Yes" if number % 2 else "No"}
            rows[split].append(row | {"q_lang": "en", "answer_type": "CLOSED", "qid": len(rows[split])})
    for split, split_rows in rows.items():
        (folder / f"{split}.json").write_text(json.dumps(split_rows))
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


def preparing(inputs: Path, output: Path, workers: int) -> list[str]:
    """The command that prepares SLAKE's form."""
    script = str(Path(__file__).resolve().parents[1] / "scripts" / "prepare_vqa.py")
    places = ["--input", str(inputs), "--output_dir", str(output)]
    return [sys.executable, script, "slake", *places, "--num_workers", str(workers)]


def watched(command: list[str], seconds: float | None = None) -> tuple[float, float, float]:
    """Run a command, and kill it after so many seconds.

    Returns:
        Peak memory of its process and of its largest worker in MB, and CPU seconds of both.
    """
    cpu, peaks = cpu_seconds(), {}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    start = time.perf_counter()
    while process.poll() is None:
        time.sleep(0.05)
        own = str(process.pid)
        try:
            children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        except OSError:
            continue
        peaks |= {name: high_water(name) or peaks.get(name, 0) for name in [own, *children]}
        if seconds is not None and time.perf_counter() - start > seconds:
            process.send_signal(signal.SIGKILL)
    if process.returncode not in (0, -signal.SIGKILL if seconds is not None else 0):
        raise UserError(f"{' '.join(command)} ended with status {process.returncode}")
    main = peaks.pop(str(process.pid), 0.0)
    return main, max(peaks.values(), default=0.0), cpu_seconds() - cpu


def size_on_disk(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def files(scratch: Path, counts: list[int], workers: int, kills: int) -> None:
    """Print memory, CPU time and disk for each number of files, and what a killed command does again."""
    measured = []
    for count in counts:
        inputs, output = make_vqa(scratch / f"files{count}", count), scratch / f"files{count}_out"
        start = time.perf_counter()
        parent, worker, cpu = watched(preparing(inputs, output, workers))
        wall = time.perf_counter() - start
        rows = sum(len(json.loads(path.read_text())) for path in inputs.glob("*.json"))
        measured.append((rows, parent))
        print(
            f"{count:,} files, {rows:,} questions: {parent:.0f} MB, {worker:.0f} MB in a worker, {cpu:.0f} CPU-s "
            f"({1e6 * cpu / rows:.0f} us a question), {wall:.0f} s, {size_on_disk(output) / 2**20:.0f} MiB of "
            f"{size_on_disk(inputs / 'imgs') / 2**20:.0f} MiB of images",
            flush=True,
        )
        if kills and count == counts[-1]:
            killed(
                inputs,
                output,
                scratch / "killed_out",
                workers,
                [wall * share / (kills + 1) for share in range(1, kills + 1)],
            )
    (few, less), (many, more) = measured[0], measured[-1]
    if many > few:
        print(f"{(more - less) * 2**20 / (many - few):.0f} bytes of memory for every further question")


def killed(inputs: Path, whole: Path, output: Path, workers: int, moments: list[float]) -> None:
    """Print what the command costs that is killed at these seconds after its starts, and compare the sets."""
    spent = [watched(preparing(inputs, output, workers), moment)[2] for moment in moments]
    spent.append(watched(preparing(inputs, output, workers))[2])
    same = all(path.read_bytes() == (output / path.relative_to(whole)).read_bytes() for path in whole.rglob("*.*"))
    print(f"killed {len(moments)} times: {', '.join(f'{cpu:.0f}' for cpu in spent)} CPU-s; the same bytes: {same}")


def main() -> None:
    """Measure speed, then memory."""
    parser = CommandParser(description="preparation against a bare decode-resize-encode loop")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num_workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", choices=["speed", "memory", "files"])
    parser.add_argument("--files", type=int, nargs="+", default=[25_000, 200_000], help="of --only files")
    parser.add_argument("--kills", type=int, default=0, help="of --only files: how often the last one is killed")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(*args.measure)
        return
    with tempfile.TemporaryDirectory() as scratch:
        if args.only == "files":
            files(Path(scratch), args.files, args.num_workers, args.kills)
            return
        if args.only != "memory":
            speed(Path(scratch), args.images, args.rounds, args.num_workers)
        if args.only != "speed":
            memory(Path(scratch), args.num_workers)


if __name__ == "__main__":
    run_command(main)
