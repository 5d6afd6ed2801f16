"""Evaluation against a plain `generate` loop: `python benchmarks/infer.py`, about three minutes on two cores.

Both answer the same questions about phantoms with the same tiny model in batches of 64, in one process and in turn.
The plain loop does what an evaluation script usually does: in file order, open the pictures, run the processor, call
`model.generate`, decode, grade. Ours is `answer_rows` with the result file: the longest prompts first, the next batch
made ready in the background, every answer on the disk. Both print wall time and CPU time (all threads); the ratio is
that of each round, and its median is the result. The claim: ours is not slower.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in eval/infer.py; for both sides

import torch
from PIL import Image

from open_r1.answers import Outcome, grade, options_in
from open_r1.checkpoints import forbidden_token_ids, load_model, load_processor
from open_r1.evaluation.generate import Encoder, Generator
from open_r1.evaluation.inference import answer_rows
from open_r1.evaluation.score import ResultWriter, read_results
from open_r1.phantoms import make_phantoms
from open_r1.prompts import build_messages
from open_r1.provenance import package_versions
from open_r1.runs import Mode
from open_r1.tiny_models import Shape, build_tiny_checkpoint
from open_r1.vqa_data import load_vqa

SHAPE = Shape(hidden=128, layers=3, heads=4, mlp=384, vision_hidden=64, vision_depth=2)


def plain_loop(model: Any, processor: Any, rows: Any, batch_size: int, new_tokens: int) -> list[Outcome]:
    """Batches of rows in file order, one thing after the other."""
    outcomes = []
    for start in range(0, len(rows), batch_size):
        batch = list(rows.select(range(start, min(start + batch_size, len(rows)))))
        pictures = [Image.open(row["image"]["path"]).convert("RGB").resize((384, 384)) for row in batch]
        texts = [
            processor.apply_chat_template(
                build_messages(row["problem"], Mode.NOTHINK), tokenize=False, add_generation_prompt=True
            )
            for row in batch
        ]
        inputs = processor(text=texts, images=pictures, padding=True, padding_side="left", return_tensors="pt")
        with torch.inference_mode():
            tokens = model.generate(
                **inputs, max_new_tokens=new_tokens, do_sample=False, suppress_tokens=forbidden_token_ids(model.config)
            )
        answers = processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for row, answer in zip(batch, answers, strict=True):
            outcomes.append(grade(answer, row["solution"], options_in(row["problem"])).outcome)
    return outcomes


def our_loop(generator: Generator, encoder: Encoder, rows: Any, batch_size: int, output: Path) -> list[Outcome | None]:
    """What eval/infer.py does after loading."""
    output.unlink(missing_ok=True)
    with ResultWriter(output, {}) as writer:
        for results in answer_rows(generator, encoder, rows, batch_size):
            for result in results:
                writer.write(result)
    found = {result.id: result.outcome for result in read_results(output).results}
    return [found[name] for name in rows["id"]]


def timed(work: Callable[[], Sequence[Outcome | None]]) -> tuple[float, float, Sequence[Outcome | None]]:
    """(wall seconds, CPU seconds of all threads, what the work returned)."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return time.perf_counter() - wall, time.process_time() - cpu, found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pictures", type=int, default=8, help="per modality; each has 5 questions")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--max_new_tokens", type=int, nargs="+", default=[8, 64], help="no-think and think lengths")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    flags = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_phantoms(root / "phantoms", train=1, test=flags.pictures)
        checkpoint = build_tiny_checkpoint(root / "model", shape=SHAPE)
        rows, _ = load_vqa(root / "phantoms" / "test.json", image_root=root / "phantoms")
        model, processor = load_model(checkpoint, torch.float32, device="cpu"), load_processor(checkpoint)
        print(f"{len(rows)} questions, batch {flags.batch_size}, {package_versions()}")
        # Both sides use the model's generation_config, which Generator replaces: greedy, no picture tokens.
        for threads in flags.threads:
            torch.set_num_threads(threads)
            for new_tokens in flags.max_new_tokens:
                generator = Generator(model, processor.tokenizer, new_tokens)
                encoder = Encoder(processor, Mode.NOTHINK)
                plain, ours = [], []
                for round_ in range(flags.rounds + 1):
                    first = timed(lambda n=new_tokens: plain_loop(model, processor, rows, flags.batch_size, n))
                    second = timed(
                        lambda g=generator, e=encoder: our_loop(g, e, rows, flags.batch_size, root / "out.jsonl")
                    )
                    assert first[2] == second[2], "the two loops graded differently"
                    if round_:  # the first warms up
                        plain.append(first[:2])
                        ours.append(second[:2])
                print(
                    f"threads {threads}, {new_tokens:3d} tokens: plain {_rate(plain, len(rows))}, "
                    f"ours {_rate(ours, len(rows))}; ratio wall {_ratio(plain, ours, 0)}, CPU {_ratio(plain, ours, 1)}",
                    flush=True,
                )


def _rate(times: list[tuple[float, float]], count: int) -> str:
    wall, cpu = median(t[0] for t in times), median(t[1] for t in times)
    return f"{count / wall:.1f}/s ({wall:.2f} s wall, {cpu:.2f} s CPU)"


def _ratio(plain: list[tuple[float, float]], ours: list[tuple[float, float]], which: int) -> str:
    ratios = [p[which] / o[which] for p, o in zip(plain, ours, strict=True)]
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    main()
