"""Does the reward `looking` keep a model from what it could answer without looking?

python benchmarks/looking_reward.py --output_dir output/looking --seeds 0 1 2

Phantoms of one modality and two tasks. In the set "usual" one option of each task is right in 60 % of the questions, so
that naming it is right in 60 % without looking; in the set "balanced" all four are right equally often. Options stand
in one order for each task. On each set GRPO trains the tiny base with `accuracy format` and with `format looking`, from
one start and with equal flags. The start has seen the form of an answer with and without images, so that a question
without its image is not new to it. Test questions show images that no training saw; they are asked as usual and without
the image.
"""

import json
from argparse import Namespace
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

from open_r1.common.command_line import CommandParser
from open_r1.common.errors import run_command
from open_r1.evaluation.scoring.results import Result, read_results
from open_r1.evaluation.scoring.statistics import accuracy, difference
from open_r1.vocabulary.labels import Modality, Task
from open_r1_testbed.demo_steps import quote, step
from open_r1_testbed.phantoms import make_phantoms
from open_r1_testbed.shortcuts import answer_text, usual_answers, with_fixed_letters, with_usual_answers

BASE = Path(__file__).resolve().parents[1] / "src" / "open_r1_testbed" / "tiny_base"
REWARDS = {"accuracy": "accuracy format", "looking": "format looking"}
SHARES = {"usual": 0.6, "balanced": 0.25}  # of the questions to which the usual answer is right; there are four options
IMAGES = {"usual": (1440, 480), "balanced": (600, 200)}  # of training and test: about 1,200 and 400 questions
TASKS = (Task.DIAGNOSIS, Task.ATTRIBUTES)  # which the base learns soonest
GRPO_FLAGS = (
    "--num_generations 8 --max_completion_length 12 --learning_rate 1e-3 --beta 0.1 --adam_beta2 0.98 "
    "--logging_steps 5 --save_strategy no --scale_rewards none"
)


def main() -> None:
    parser = CommandParser(description=__doc__)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", choices=IMAGES, default=list(IMAGES))
    parser.add_argument("--max_steps", type=int, default=100, help="GRPO steps (default: %(default)s)")
    parser.add_argument("--prompts", type=int, default=64, help="prompts per step (default: %(default)s)")
    flags = parser.parse_args()
    lines = []
    for seed in flags.seeds:
        for data in flags.sets:
            runs = {name: train(flags.output_dir / f"{data}-{seed}", data, name, seed, flags) for name in REWARDS}
            lines += [f"seed {seed}, {data}: {line}" for line in compare(runs, flags.output_dir / f"{data}-{seed}")]
    print("\n" + "\n".join(lines))


def train(folder: Path, data: str, name: str, seed: int, flags: Namespace) -> dict[str, list[Result]]:
    """Train one model and ask it the test questions; its results as usual (`shown`) and without the image (`none`)."""
    phantoms = make_phantoms(folder / "phantoms", *IMAGES[data], seed, [Modality.CT])
    for number, split in enumerate(("train", "test")):
        rows = json.loads((phantoms / f"{split}.json").read_text(encoding="utf-8"))
        rows = [row for row in rows if row["task"] in TASKS]
        rows = with_fixed_letters(with_usual_answers(rows, SHARES[data], 2 * seed + number))
        (folder / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")
        if split == "train":
            without = [{key: value for key, value in row.items() if key != "image"} for row in rows]
            (folder / "start.json").write_text(json.dumps([*rows, *without]), encoding="utf-8")
    images = f"--image_root {quote(phantoms)}"
    questions = f"--dataset_name {quote(folder / 'train.json')} {images}"
    start, trained = folder / "start", folder / name
    if not start.exists():
        step(
            f"{folder.name}: the form of an answer, with random options",
            f"python scripts/teach_format.py --model_name_or_path {quote(BASE)} "
            f"--dataset_name {quote(folder / 'start.json')} {images} "
            f"--output_dir {quote(start)} --answer letter --max_steps 120 --seed {seed}",
        )
    step(
        f"{folder.name}: GRPO with {REWARDS[name]}",
        f"python src/open_r1/grpo_vqa_nothink.py --model_name_or_path {quote(start)} {questions} "
        f"--output_dir {quote(trained)} --reward_funcs {REWARDS[name]} {GRPO_FLAGS} "
        f"--per_device_train_batch_size {flags.prompts} --max_steps {flags.max_steps} --seed {seed}",
    )
    results = {}
    for image in ("shown", "none"):
        output = folder / f"{name}-{image}.jsonl"
        step(
            f"{folder.name}: test questions, image {image}",
            f"python eval/infer.py --model_path {quote(trained)} --prompt_path {quote(folder / 'test.json')} "
            f"--image_root {quote(phantoms)} --output_path {quote(output)} --mode nothink --max_new_tokens 12 "
            f"--image {image}",
        )
        results[image] = read_results(output).results
    return results


def compare(runs: Mapping[str, Mapping[str, Sequence[Result]]], folder: Path) -> list[str]:
    """Lines with accuracies in % and the paired difference, looking minus accuracy."""
    usual = usual_answers(json.loads((folder / "train.json").read_text(encoding="utf-8")))
    lines = []
    for title, image, only_unusual in (
        ("accuracy", "shown", False),
        ("right without the image", "none", False),
        ("accuracy where another answer is right than the usual one", "shown", True),
    ):
        chosen = {
            name: {result.id: result for result in views[image] if not (only_unusual and is_usual(result, usual))}
            for name, views in runs.items()
        }
        names = sorted(chosen["accuracy"])
        images = [chosen["accuracy"][name].image for name in names]
        right = {run: [results[name].correct for name in names] for run, results in chosen.items()}
        estimates = {run: accuracy(values, images) for run, values in right.items()}
        gain = difference(right["accuracy"], right["looking"], images)
        texts = [f"{run} {100 * e.mean:.1f} ± {100 * (e.stderr or 0):.1f}" for run, e in estimates.items()]
        low, high = 100 * (gain.low or 0), 100 * (gain.high or 0)
        lines.append(f"{title}: {', '.join(texts)}; {100 * gain.mean:+.1f} [{low:.1f}, {high:.1f}], n = {len(names)}")
    return lines


def is_usual(result: Result, usual: Mapping[Hashable, str]) -> bool:
    """Whether the usual answer is right."""
    row = {"problem": result.problem, "solution": result.solution}
    return answer_text(row) == usual[result.modality, result.task]


if __name__ == "__main__":
    run_command(main)
