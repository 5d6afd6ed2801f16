"""The whole story on a laptop: draw a data set, train a tiny model on it with GRPO, and show what that changed.

python scripts/demo.py --output_dir output/demo --seed 0

Every step is a command that a user could type; each is printed before it runs. The base is a real Qwen2.5-VL of about
a million parameters that knows the drawn images and reads the options, but does not know the published prompt. It is
shown the form of an answer with options drawn at random, then GRPO trains it; test questions show images that no
training saw, and are asked again with their options in another order, and without the image.
"""

import json
import time
from pathlib import Path

from open_r1.common.errors import run_command
from open_r1.evaluation.scoring.blind_floor import blind_floor
from open_r1.evaluation.scoring.results import Result
from open_r1.evaluation.scoring.statistics import accuracy
from open_r1.vocabulary.labels import Modality, Task
from open_r1_testbed.demo_report import Pairs, check_lines, gain_lines, read_pairs
from open_r1_testbed.demo_steps import PROCESSES, end_line, prepare_folder, quote, read_flags, step

BASE = Path(__file__).resolve().parents[1] / "src" / "open_r1_testbed" / "tiny_base"
PROMPTS = 64  # per step, x 8 completions: a large batch, as a group costs little more than one completion
GRPO_FLAGS = (
    f"--per_device_train_batch_size {PROMPTS // PROCESSES} --num_generations 8 --max_completion_length 16 "
    "--learning_rate 5e-4 --beta 0.1 --adam_beta2 0.98 --logging_steps 5 --save_strategy no"
)


def main() -> None:
    """Run every step, then print the table."""
    flags = read_flags(__doc__, "output/demo", 50, PROMPTS)
    folder: Path = flags.output_dir
    prepare_folder(folder, flags.overwrite)
    started = time.monotonic()
    phantoms, start, trained = folder / "phantoms", folder / "start", folder / "trained"
    data = f"--dataset_name {quote(phantoms / 'train.json')} --image_root {quote(phantoms)}"
    step(
        "draw images and questions",
        f"python -m open_r1_testbed.phantoms --output_dir {quote(phantoms)} --seed {flags.seed}",
    )
    step(
        "teach the tiny base the form of an answer, with random options",
        f"python scripts/teach_format.py --model_name_or_path {quote(BASE)} {data} --output_dir {quote(start)} "
        f"--answer thought --seed {flags.seed}",
    )
    step("accuracy before GRPO", inference(start, phantoms, folder / "before.jsonl"))
    step(
        "GRPO, think",
        f"torchrun --standalone --nproc_per_node={PROCESSES} src/open_r1/grpo_vqa.py "
        f"--model_name_or_path {quote(start)} {data} --output_dir {quote(trained)} {GRPO_FLAGS} "
        f"--max_steps {flags.max_steps} --seed {flags.seed} --shared_prefix {flags.shared_prefix}",
    )
    step("accuracy after GRPO", inference(trained, phantoms, folder / "after.jsonl"))
    shuffled, blind = folder / "shuffled.jsonl", folder / "blind.jsonl"
    blind_before = folder / "before-blind.jsonl"
    step("the same with the options in another order", inference(trained, phantoms, shuffled, "--options shuffled"))
    step("the same without the image", inference(trained, phantoms, blind, "--image none"))
    step("before GRPO without the image", inference(start, phantoms, blind_before, "--image none"))
    names = ("before", "after", "before-blind", "blind", "shuffled")
    files = " ".join(quote(folder / f"{name}.jsonl") for name in names)
    step(
        "tables and heatmaps",
        f"python eval/report.py --with_items {files} --baseline {quote(folder / 'before.jsonl')} "
        f"--image_root {quote(phantoms)} --output_dir {quote(folder / 'report')}",
        quiet=True,
    )
    show(folder, phantoms)
    print(end_line(folder, (start, trained), started))


def inference(model: Path, phantoms: Path, output: Path, flags: str = "") -> str:
    """The command that scores a checkpoint on the test questions."""
    return (
        f"python eval/infer.py --model_path {quote(model)} --prompt_path {quote(phantoms / 'test.json')} "
        f"--train_path {quote(phantoms / 'train.json')} --image_root {quote(phantoms)} --output_path {quote(output)} "
        f"--mode think --max_new_tokens 16 {flags}"
    )


def show(folder: Path, phantoms: Path) -> None:
    """Print the table, the gain with its error, the floors beside it, and what all this can and cannot mean."""
    pairs = read_pairs(folder / "before.jsonl", folder / "after.jsonl")
    print(f"\n== accuracy in %, before > after GRPO, +- standard error; n = {len(pairs)} questions about unseen images")
    print("".join(f"{name:>18}" for name in ["", *(task.short for task in Task), "all"]))
    for modality in [*Modality, None]:
        cells = [cell([p for p in pairs if asks(p[1], modality, task)]) for task in [*Task, None]]
        print("".join(f"{text:>18}" for text in [modality or "all", *cells]))
    print(f"{'n per cell':>18}{len(pairs) // (len(Modality) * len(Task)):>18}")
    floor = blind_floor(*(json.loads((phantoms / f"{side}.json").read_text()) for side in ("train", "test")))
    print(
        f"\n{gain_lines(pairs, floor, 'no image looked at')}\n"
        f"{check_lines(pairs, folder / 'shuffled.jsonl', folder / 'blind.jsonl')}\n"
        "A task always offers the same four options, which is easier than the real questions, and the base knows the\n"
        "drawn images: GRPO brings that knowledge out under a prompt that did not have it."
    )


def asks(result: Result, modality: Modality | None, task: Task | None) -> bool:
    """Whether a question belongs to a cell; None stands for all."""
    return (modality is None or result.modality == modality) and (task is None or result.task == task)


def cell(pairs: Pairs) -> str:
    """Accuracy before and after of some questions, in per cent with its standard error."""
    accuracies = [
        accuracy([result.correct for result in side], [result.image for result in side])
        for side in zip(*pairs, strict=True)
    ]
    return " > ".join(f"{100 * estimate.mean:.0f}+-{100 * (estimate.stderr or 0):.0f}" for estimate in accuracies)


if __name__ == "__main__":
    run_command(main)
