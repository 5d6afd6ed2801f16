"""The text path on a laptop: make up riddles, train a tiny text model on them with GRPO, and show what that changed.

python scripts/demo_text.py --output_dir output/demo-text --seed 0

Every step is a command that a user could type; each is printed before it runs. The base is a real Qwen2 that learns
here, from nothing, to solve riddles under prompts of its own. It is shown the form of an answer under the published
prompt with random letters, then GRPO trains it; the test questions are about patients that no training saw.
"""

import argparse
import json
import os
import time
from pathlib import Path

from open_r1.demo_steps import prepare_folder, quote, step
from open_r1.errors import run_command
from open_r1.evaluation.blind import blind_floor, chance
from open_r1.evaluation.score import Result, read_results
from open_r1.evaluation.statistics import Z95, accuracy, difference
from open_r1.riddles import TOPICS

PROCESSES = 2
GRPO_FLAGS = (
    f"--mode nothink --reward_funcs accuracy format --per_device_train_batch_size {64 // PROCESSES} "
    "--num_generations 8 --max_completion_length 8 --learning_rate 1e-3 --beta 0.1 --adam_beta2 0.98 "
    "--logging_steps 5 --save_strategy no --report_to none"
)


def main() -> None:
    """Run every step, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("output/demo-text"))
    parser.add_argument("--seed", type=int, default=0, help="of the riddles, the base, the format start and GRPO")
    parser.add_argument("--max_steps", type=int, default=60, help="GRPO steps of 64 prompts x 8 completions")
    parser.add_argument("--shared_prefix", default="true", help="false: the same steps on stock TRL (slower)")
    parser.add_argument("--overwrite", action="store_true", help="remove an earlier demo in that folder first")
    flags = parser.parse_args()
    folder: Path = flags.output_dir
    prepare_folder(folder, flags.overwrite)
    begun = time.monotonic()
    riddles, base, start, trained = (folder / name for name in ("riddles", "base", "start", "trained"))
    seed = f"--seed {flags.seed}"
    step("make up riddles", f"python -m open_r1.riddles --output_dir {quote(riddles)} {seed}")
    step(
        "build a tiny text model that can solve riddles under prompts of its own",
        f"python scripts/build_text_base.py --output_dir {quote(base)} {seed}",
    )
    step(
        "teach it the form of an answer under the published prompt, with random letters",
        f"python scripts/teach_format.py --model_name_or_path {quote(base)} --dataset_name {quote(riddles)} "
        f"--output_dir {quote(start)} {seed}",
    )
    step("accuracy before GRPO", inference(start, riddles, folder / "before.jsonl"))
    step(
        "GRPO, no-think",
        f"torchrun --standalone --nproc_per_node={PROCESSES} src/open_r1/grpo.py --model_name_or_path {quote(start)} "
        f"--dataset_name {quote(riddles)} --output_dir {quote(trained)} {GRPO_FLAGS} --max_steps {flags.max_steps} "
        f"{seed} --shared_prefix {flags.shared_prefix}",
    )
    step("accuracy after GRPO", inference(trained, riddles, folder / "after.jsonl"))
    step(
        "tables and heatmaps",
        f"python eval/report.py --with_items {quote(folder / 'before.jsonl')} {quote(folder / 'after.jsonl')} "
        f"--output_dir {quote(folder / 'report')}",
        quiet=True,
    )
    show(folder, riddles, time.monotonic() - begun)


def inference(model: Path, riddles: Path, output: Path) -> str:
    """The command that scores a checkpoint on the test questions."""
    return (
        f"python eval/infer.py --model_path {quote(model)} --prompt_path {quote(riddles)} "
        f"--output_path {quote(output)} --mode nothink --max_new_tokens 8"
    )


def show(folder: Path, riddles: Path, seconds: float) -> None:
    """Print the table, the gain with its error, the floors beside it, and what all this can and cannot mean."""
    first = {result.id: result for result in read_results(folder / "before.jsonl").results}
    pairs = [(first[after.id], after) for after in read_results(folder / "after.jsonl").results]
    topics = topics_of(riddles)
    print(f"\n== accuracy in % +- standard error, on {len(pairs)} questions about patients that training did not see")
    print(f"{'':>12}{'n':>6}{'before':>14}{'after':>14}")
    for topic in [*(each.name for each in TOPICS), None]:
        own = [pair for pair in pairs if topic in (topics[pair[1].id], None)]
        before, after = (cell([pair[side] for pair in own]) for side in (0, 1))
        print(f"{topic or 'all':>12}{len(own):>6}{before:>14}{after:>14}")
    gain = difference([b.correct for b, _ in pairs], [a.correct for _, a in pairs], [a.image for _, a in pairs])
    error = gain.stderr or 0.0
    floor = blind_floor(texts(riddles, "train"), texts(riddles, "test"))
    used = os.times()
    print(
        f"\ngain: {100 * gain.mean:+.1f} points, 95 % interval [{100 * (gain.mean - Z95 * error):.1f}, "
        f"{100 * (gain.mean + Z95 * error):.1f}], n = {gain.n}, {gain.test} p = {gain.p:.1e}\n"
        f"blind floor: {100 * floor:.1f} % (the option most often right in training, the question not read); "
        f"chance: {100 * chance(a.problem for _, a in pairs):.1f} %\n"
        "The options of a topic stand in a fixed order here, which is easier than the real questions, the signs are\n"
        "those of training, and the base knows them: GRPO brings that knowledge out under a prompt that did not have "
        "it.\n"
        f"pictures: {folder / 'report'}   checkpoints: {folder / 'base'}, {folder / 'start'}, {folder / 'trained'}; "
        f"{seconds:.0f} s in all, {used.children_user + used.children_system:.0f} CPU-s"
    )


def topics_of(riddles: Path) -> dict[str, str]:
    """Each test question's topic by its id."""
    lines = (riddles / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"]: row["question_type"] for row in map(json.loads, lines)}


def texts(riddles: Path, split: str) -> list[dict[str, str]]:
    """Problems and solutions of a split."""
    lines = (riddles / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def cell(results: list[Result]) -> str:
    """Accuracy of some questions, in per cent with its standard error."""
    part = accuracy([each.correct for each in results], [each.image for each in results])
    return f"{100 * part.mean:.1f} +- {100 * (part.stderr or 0):.1f}"


if __name__ == "__main__":
    run_command(main)
