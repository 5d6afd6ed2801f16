"""Evaluation against a plain `generate` loop: `python benchmarks/infer.py`, some minutes on two cores.

Both answer the same questions about phantoms with the same model in batches of 64, and write the same texts (asserted
in float32). The plain loop does what a published evaluation script does: in file order, open the batch's images, run
the processor, call `model.generate`, decode, grade; nothing overlaps. Ours is what eval/infer.py does after loading,
with the result file: once in one process, and once in one process per core, as torchrun starts it.

Questions per image matter, because ours looks at an image once: phantoms have five, OmniMedVQA's test files 1.00 to
1.04, so both five and one are timed. Wall and CPU time (all threads and processes) are medians of the rounds, the ratio
is that of each round. Below stands where the time goes; what runs in the background is marked.

Full size with random weights on a GPU, bfloat16 (a published config.json and processor, no weights needed):
python benchmarks/infer.py --config CONFIG_DIR --processor PROCESSOR_DIR --questions 2560
"""

import multiprocessing
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in eval/infer.py; for both sides

import torch
from PIL import Image

from open_r1.checkpoints.families import forbidden_token_ids
from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.common.command_line import CommandParser
from open_r1.common.errors import run_command
from open_r1.common.provenance import hardware, package_versions
from open_r1.data.loading import load_rows
from open_r1.evaluation.answering.backends.generator import Generator
from open_r1.evaluation.answering.batches import group_indices
from open_r1.evaluation.answering.encoder import Encoder
from open_r1.evaluation.answering.questions import answer_rows
from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import read_results
from open_r1.grading.grader import grade
from open_r1.grading.problems import options_in
from open_r1.modeling.gpu_kernels import choose_attention_kernels
from open_r1.vocabulary.labels import Modality
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import build_messages
from open_r1_testbed.phantoms import make_phantoms
from open_r1_testbed.tiny_models import Shape, build_tiny_checkpoint

SHAPE = Shape(hidden=128, layers=3, heads=4, mlp=384, vision_hidden=64, vision_depth=2)


@dataclass
class Clock:
    """Seconds by section, in the order in which sections first ended."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start

    def around(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            with self.section(name):
                return work(*arguments)

        return timed


@dataclass(frozen=True)
class Work:
    """What is to be done, as another process can be told it."""

    checkpoint: Path
    root: Path  # the phantoms' folder
    questions: int
    per_image: int
    batch_size: int
    device: str

    def rows(self) -> Any:
        """The questions: `per_image` of as many images as it takes, in file order."""
        rows, _ = load_rows(self.root / "test.json", image_root=self.root)
        groups = group_indices(images[0]["path"] for images in rows["images"])
        return rows.select(
            sorted(index for group in groups[: self.questions // self.per_image] for index in group[: self.per_image])
        )

    def model(self) -> Any:
        dtype = torch.float32 if self.device == "cpu" else torch.bfloat16
        return load_model(self.checkpoint, dtype, device=self.device)


def plain_loop(model: Any, processor: Any, rows: Any, batch_size: int, new_tokens: int, clock: Clock) -> dict[str, str]:
    """Batches of rows in file order, one thing after the other; id -> text."""
    texts = {}
    forbidden = forbidden_token_ids(model.config)
    for start in range(0, len(rows), batch_size):
        batch = list(rows.select(range(start, min(start + batch_size, len(rows)))))
        with clock.section("open images"):
            opened = [Image.open(row["images"][0]["path"]).convert("RGB").resize((384, 384)) for row in batch]
        with clock.section("processor"):
            prompts = [
                processor.apply_chat_template(
                    build_messages(row["problem"], Mode.NOTHINK), tokenize=False, add_generation_prompt=True
                )
                for row in batch
            ]
            inputs = processor(text=prompts, images=opened, padding=True, padding_side="left", return_tensors="pt")
            inputs = inputs.to(model.device)
        with clock.section("generate"), torch.inference_mode():
            tokens = model.generate(
                **inputs, max_new_tokens=new_tokens, do_sample=False, suppress_tokens=forbidden, repetition_penalty=1.0
            )[:, inputs["input_ids"].shape[1] :].tolist()
        with clock.section("decode, grade"):
            for row, text in zip(batch, processor.batch_decode(tokens, skip_special_tokens=True), strict=True):
                grade(text, row["solution"], options_in(row["problem"]))
                texts[row["id"]] = text
    return texts


class TimedEncoder(Encoder):
    """An encoder whose calls are timed; they run in the background."""

    def __init__(self, encoder: Encoder, clock: Clock) -> None:
        super().__init__(**{field.name: getattr(encoder, field.name) for field in fields(encoder)})
        self._clock = clock

    def __call__(self, rows: Sequence[Any], views: Sequence[Any] | None = None) -> Any:
        with self._clock.section("encode (background)"):
            return super().__call__(rows, views)


def our_loop(generator: Generator, encoder: Encoder, rows: Any, batch_size: int, output: Path, clock: Clock) -> None:
    """What eval/infer.py does after loading, appended to `output`."""
    answer = clock.around("generate, decode", generator)
    with ResultWriter(output, {}, written_ids=[]) as writer, clock.section("all"):
        for results in answer_rows(answer, TimedEncoder(encoder, clock), rows, batch_size):
            for result in results:
                writer.write(result)
    seconds = clock.seconds
    seconds["wait, grade, write"] += seconds.pop("all") - seconds["generate, decode"]


class Ours:
    """A loaded model that answers a share of the questions."""

    def __init__(self, work: Work, rank: int = 0, size: int = 1) -> None:
        self.batch_size = work.batch_size
        rows = work.rows()
        groups = group_indices(images[0]["path"] for images in rows["images"])
        self.rows = rows.select([index for group in groups[rank::size] for index in group])
        self.model = work.model()
        gpu = None if work.device == "cpu" else work.device
        self.encoder = Encoder(load_processor(work.checkpoint), Mode.NOTHINK, device=gpu)

    def __call__(self, new_tokens: int, output: Path) -> tuple[float, Clock]:
        """(CPU seconds, where the time went)."""
        generator, clock, cpu = Generator(self.model, self.encoder.tokenizer, new_tokens), Clock(), time.process_time()
        our_loop(generator, self.encoder, self.rows, self.batch_size, output, clock)
        return time.process_time() - cpu, clock


def serve(pipe: Any, work: Work, rank: int, size: int) -> None:
    """One of several processes, loaded and waiting: what torchrun starts, without the time that starting takes."""
    torch.set_num_threads(1)
    ours = Ours(work, rank, size)
    pipe.send(None)
    while (message := pipe.recv()) is not None:
        pipe.send(ours(*message)[0])


class Processes:
    """`size` processes that answer together; their start is not timed."""

    def __init__(self, work: Work, size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes = []
        for rank in range(size):
            here, there = context.Pipe()
            context.Process(target=serve, args=(there, work, rank, size), daemon=True).start()
            self.pipes.append(here)
        for pipe in self.pipes:
            pipe.recv()

    def __call__(self, new_tokens: int, output: Path) -> float:
        """CPU seconds of all processes."""
        for pipe in self.pipes:
            pipe.send((new_tokens, output))
        return sum(pipe.recv() for pipe in self.pipes)

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)


@dataclass
class Times:
    """Wall and CPU seconds of every round but the first, which warms up."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def rate(self, count: int) -> str:
        return f"{count / median(self.wall):6.1f}/s ({median(self.wall):.2f} s wall, {median(self.cpu):.2f} s CPU)"

    def against(self, plain: "Times") -> str:
        wall = [p / o for p, o in zip(plain.wall, self.wall, strict=True)]
        cpu = [p / o for p, o in zip(plain.cpu, self.cpu, strict=True)]
        return f"wall {median(wall):.2f}x ({min(wall):.2f} to {max(wall):.2f}), CPU {median(cpu):.2f}x"


def compare(work: Work, lengths: Sequence[int], rounds: int, processes: int) -> None:
    """Time both sides in turn and print the ratios."""
    rows, processor = work.rows(), load_processor(work.checkpoint)
    plain_model, ours = work.model(), Ours(work)  # two models: ours changes how patches are embedded
    several = Processes(work, processes) if processes > 1 else None
    images = len({images[0]["path"] for images in rows["images"]})
    print(f"\n{len(rows)} questions on {images} images, batch {work.batch_size}")
    for new_tokens in lengths:
        times: dict[str, Times] = defaultdict(Times)
        splits: list[Clock] = []
        for round_ in range(rounds + 1):
            output = work.checkpoint.parent / "out.jsonl"
            clock, wall, cpu = Clock(), time.perf_counter(), time.process_time()
            expected = plain_loop(plain_model, processor, rows, work.batch_size, new_tokens, clock)
            measured = {"plain": (time.perf_counter() - wall, time.process_time() - cpu)}
            for name, side in (("one process", ours), (f"{processes} processes", several)):
                if side is None:
                    continue
                begin(output)
                wall = time.perf_counter()
                message = side(new_tokens, output)
                elapsed = time.perf_counter() - wall
                measured[name] = (elapsed, message[0] if isinstance(message, tuple) else message)
                splits = [clock, message[1]] if isinstance(message, tuple) else splits
                agree(expected, output, exact=work.device == "cpu")
            if round_:
                for name, (elapsed, used) in measured.items():
                    times[name].wall.append(elapsed)
                    times[name].cpu.append(used)
        print(f"{new_tokens} new tokens, {torch.get_num_threads()} threads: plain {times['plain'].rate(len(rows))}")
        for name in list(times)[1:]:
            print(f"  ours, {name}: {times[name].rate(len(rows))}: {times[name].against(times['plain'])}")
        for name, clock in zip(("plain", "ours, one process"), splits, strict=True):
            print(f"  time split, {name}: " + ", ".join(f"{key} {s:.2f} s" for key, s in clock.seconds.items()))
        print(end="", flush=True)
    if several is not None:
        several.close()


def begin(output: Path) -> None:
    output.unlink(missing_ok=True)
    ResultWriter(output, {}).close()


def agree(expected: dict[str, str], output: Path, exact: bool) -> None:
    """Both wrote the same; in bfloat16, where rounding depends on the batch, most of it."""
    outputs = {result.id: result.output for result in read_results(output).results}
    assert outputs.keys() == expected.keys()
    agreement = sum(outputs[name] == text for name, text in expected.items()) / len(expected)
    if exact:
        assert agreement == 1, f"{1 - agreement:.1%} of the texts differ"
    elif agreement < 1:
        print(f"  (bfloat16: {agreement:.1%} of the texts are equal)")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = CommandParser(description=__doc__)
    cores = os.cpu_count() or 1
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--questions", type=int, default=320)
    parser.add_argument("--per_image", type=int, nargs="+", default=[5, 1], help="questions of each image, at most 5")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--max_new_tokens", type=int, nargs="+", default=[8, 64], help="no-think and think lengths")
    parser.add_argument("--threads", type=int, default=cores, help="of the plain loop, and of ours in one process")
    parser.add_argument("--processes", type=int, default=cores, help="of ours, with one thread each; 1: leave out")
    parser.add_argument("--config", type=Path, help="folder with a config.json: full size, random weights, GPU")
    parser.add_argument("--processor", type=Path, help="folder with the processor for --config")
    flags = parser.parse_args(arguments)
    torch.set_num_threads(flags.threads)
    choose_attention_kernels()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_phantoms(root / "phantoms", train=1, test=-(-flags.questions // min(flags.per_image) // len(Modality)))
        if flags.config:
            from grpo_step import full_size

            checkpoint, device, processes = full_size(flags.config, root / "model", flags.processor), "cuda", 1
        else:
            checkpoint = build_tiny_checkpoint(root / "model", shape=SHAPE)
            device, processes = "cpu", flags.processes
        print(f"{hardware()}, {cores} cores, {package_versions()}")
        for per_image in flags.per_image:
            work = Work(checkpoint, root / "phantoms", flags.questions, per_image, flags.batch_size, device)
            compare(work, flags.max_new_tokens, flags.rounds, processes)


if __name__ == "__main__":
    run_command(main)
