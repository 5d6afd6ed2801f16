"""The flags of the training commands: the published ones, TRL's, and what they mean together.

The published commands were written for trl 0.14; its defaults, which the published runs relied on, are restored here
where trl 1.16 has changed its own. `per_device_train_batch_size` counts prompts, as those commands mean it.
"""

import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import torch
from trl import GRPOConfig, ModelConfig, TrlParser

from open_r1.curriculum import Curriculum
from open_r1.errors import UserError
from open_r1.model_card import take_over_push
from open_r1.old_keys import translated, translated_flags
from open_r1.reward_settings import RewardSettings
from open_r1.runs import Mode
from open_r1.sharding import shard_on_cpu
from open_r1.tracking import prepare_trackers


@dataclass
class QuestionArguments:
    """What to train on, and how a question is put; the same for GRPO and SFT."""

    dataset_name: list[str] = field(
        metadata={
            "help": "Prepared folder (data/VQA/CT_384), saved DatasetDict, or JSON list with --image_root; several "
            "are trained on together, pictures and text alike."
        }
    )
    image_root: str | None = field(
        default=None, metadata={"help": "Folder that the picture paths of a JSON list are relative to."}
    )
    mode: str | None = field(
        default=None,
        metadata={"help": "Answer form: think, nothink or think_after. Each entry script has its own default."},
    )
    max_prompt_length: int = field(
        default=1024,
        metadata={"help": "Longest prompt in tokens, the picture's included. A prompt is never cut."},
    )
    overlong_prompts: str = field(
        default="drop",
        metadata={"help": "What to do with a longer prompt: drop it and say so, or refuse the data set."},
    )
    max_pixels: int | None = field(
        default=None, metadata={"help": "Largest area in pixels that a picture is shown to the model at."}
    )
    min_pixels: int | None = field(
        default=None, metadata={"help": "Smallest area in pixels that a picture is shown to the model at."}
    )
    eval_dataset_name: list[str] | None = field(
        default=None,
        metadata={
            "help": "With --eval_strategy: sets whose test split is asked while training; default: those of "
            "--dataset_name. Who chooses a checkpoint by them needs other questions to report on."
        },
    )
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "With --eval_strategy: ask so many of those questions, the same each time."}
    )
    lora_on: str | None = field(
        default=None,
        metadata={"help": "With --use_peft: adapt the linear layers of language (default), vision or both."},
    )

    def __post_init__(self) -> None:
        if isinstance(self.dataset_name, str):  # as a YAML file may write it
            self.dataset_name = [self.dataset_name]
        if isinstance(self.eval_dataset_name, str):
            self.eval_dataset_name = [self.eval_dataset_name]
        if self.max_eval_samples is not None and self.max_eval_samples < 1:
            raise UserError(f"--max_eval_samples {self.max_eval_samples} asks nothing; give a positive number")
        twice = sorted({name for name in self.dataset_name if self.dataset_name.count(name) > 1})
        if twice:
            raise UserError(f"--dataset_name names {twice[0]} twice; a question is trained on once")
        trained = [mode.value for mode in Mode if mode.is_trained]
        if self.mode == Mode.DIRECT:
            raise UserError(
                "--mode direct is for evaluating models that were not trained here; "
                f"train with one of {', '.join(trained)}"
            )
        if self.mode is not None and self.mode not in trained:
            raise UserError(f"--mode {self.mode!r} does not exist; choose one of {', '.join(trained)}")
        if self.overlong_prompts not in ("drop", "refuse"):
            raise UserError(f"--overlong_prompts takes drop or refuse, not {self.overlong_prompts!r}")
        if self.max_prompt_length < 1:
            raise UserError(f"--max_prompt_length {self.max_prompt_length} leaves no prompt; give a positive number")


@dataclass
class VQAArguments(RewardSettings, QuestionArguments):
    """What to train on with GRPO, on pictures or on text, and what a completion earns."""

    reward_funcs: list[str] = field(
        default_factory=lambda: ["accuracy", "format"],
        metadata={"help": "Rewards by name, each weighted 1 unless --reward_weights says otherwise."},
    )
    shared_prefix: bool = field(
        default=True,
        metadata={"help": "Compute picture and prompt once per group; false runs stock TRL, a row per completion."},
    )
    verify_shared_prefix: bool = field(
        default=True,
        metadata={"help": "Hold the first group of the run against stock TRL's rows and stop if they differ."},
    )
    freeze_vision_tower: bool = field(
        default=False,
        metadata={"help": "Train the language model alone; a picture's features are computed once and kept."},
    )
    vision_cache_gib: float = field(
        default=8.0, metadata={"help": "Host memory in GiB per process for the features of a frozen vision tower."}
    )
    tokens_per_micro_batch: int | None = field(
        default=None,
        metadata={"help": "Most tokens in one forward pass: the prompts of a micro-batch are divided by length."},
    )
    resample_dead_groups: int = field(
        default=0,
        metadata={
            "help": "Rounds of further prompts to draw for groups that all earned the same; a prompt is taken where "
            "some completions are right and some are wrong. They come from the whole set, whatever --curriculum says."
        },
    )
    try_longest_batch: bool | None = field(
        default=None,
        metadata={"help": "Pass the longest possible batch before step 1. Default: on a GPU, where memory may end."},
    )

    difficulty: str | None = field(
        default=None,
        metadata={"help": "Pass rates of the questions, as scripts/grade_difficulty.py writes them."},
    )
    curriculum: str = field(
        default="none",
        metadata={
            "help": "With --difficulty: none shuffles, easy_to_hard goes by falling pass rate, mixed puts "
            "--hard_fraction of hard questions into every generation batch."
        },
    )
    hard_fraction: float | None = field(
        default=None, metadata={"help": "With --curriculum mixed: share of hard questions, 0 to 1."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_curriculum()
        if self.tokens_per_micro_batch is not None and self.tokens_per_micro_batch < 1:
            raise UserError(f"--tokens_per_micro_batch {self.tokens_per_micro_batch} holds nothing; give 4096, say")
        if self.resample_dead_groups < 0:
            raise UserError(
                f"--resample_dead_groups {self.resample_dead_groups} is no number of rounds; 0 turns it off"
            )
        if not self.shared_prefix and (self.tokens_per_micro_batch or self.resample_dead_groups):
            raise UserError(
                "--tokens_per_micro_batch and --resample_dead_groups work on whole groups, which --shared_prefix false "
                "does not have; leave one or the other out"
            )

    def _check_curriculum(self) -> None:
        if self.curriculum not in list(Curriculum):
            raise UserError(f"--curriculum {self.curriculum!r} does not exist; choose one of {', '.join(Curriculum)}")
        ordered, mixed = self.curriculum != Curriculum.NONE, self.curriculum == Curriculum.MIXED
        if ordered and self.difficulty is None:
            raise UserError(
                f"--curriculum {self.curriculum} needs --difficulty, the file of scripts/grade_difficulty.py"
            )
        if self.difficulty is not None and not ordered:
            raise UserError("--difficulty does nothing without --curriculum; add one or leave it out")
        if mixed != (self.hard_fraction is not None):
            raise UserError(
                "--hard_fraction and --curriculum mixed belong together; "
                + ("say which share is to be hard" if mixed else "leave --hard_fraction out")
            )


@dataclass
class GRPOTrainingConfig(GRPOConfig):
    """`trl.GRPOConfig` with the defaults of the published runs and batch sizes counted in prompts.

    After construction `per_device_train_batch_size` and `per_device_eval_batch_size` hold completions, as TRL wants
    them, and `prompts_per_device` what the user typed. `notes` are lines to show once at the start.
    """

    learning_rate: float = field(default=1e-6, metadata={"help": "Peak learning rate (AdamW, linear decay)."})
    beta: float = field(default=0.04, metadata={"help": "Weight of the KL term against the frozen start."})
    loss_type: str = field(default="grpo", metadata={"help": "Loss; grpo is the mean over each sequence."})
    num_generations: int | None = field(default=4, metadata={"help": "Completions per prompt (G)."})
    max_completion_length: int | None = field(default=256, metadata={"help": "Longest completion in tokens."})
    # TRL's own field is `bool | None`, for which a bare `--bf16`, as the published commands write it, is an error.
    bf16: bool = field(default=False, metadata={"help": "bfloat16 mixed precision; the weights stay float32."})
    gradient_checkpointing: bool = field(
        default=False, metadata={"help": "Trade about a fifth more compute for activation memory."}
    )
    per_device_train_batch_size: int = field(
        default=1,
        metadata={"help": "Prompts per device and micro-batch; each brings num_generations completions."},
    )
    per_device_eval_batch_size: int = field(default=8, metadata={"help": "Prompts per device in evaluation."})
    remove_unused_columns: bool | None = field(
        default=False, metadata={"help": "Keep false: rewards read the columns problem and solution."}
    )
    log_multimodal: bool = field(
        default=False,
        metadata={"help": "Upload pictures with logged completions. Medical data: off by default."},
    )

    def __post_init__(self) -> None:
        self.notes: list[str] = []
        self._fit_to_hardware()
        if not self.num_generations or self.num_generations < 2:
            raise UserError(
                f"--num_generations {self.num_generations}: a group needs at least 2 completions to compare"
            )
        self.per_device_train_batch_size *= self.num_generations
        self.per_device_eval_batch_size *= self.num_generations_eval or self.num_generations
        self.prompts_per_device = self.per_device_train_batch_size // self.num_generations
        super().__post_init__()
        shard_on_cpu(self)
        if self.save_only_model and self.save_strategy != "no":
            self.notes.append(
                "--save_only_model true: checkpoints hold weights only, so an interrupted run cannot be continued"
            )

    def _fit_to_hardware(self) -> None:
        if torch.cuda.is_available() and not self.use_cpu:
            return
        if self.bf16 or self.fp16:
            asked = "--bf16" if self.bf16 else "--fp16"
            self.notes.append(f"{asked}: no GPU here, so this run computes in float32")
        self.use_cpu, self.bf16, self.fp16, self.dataloader_pin_memory = True, False, False, False
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
            open_process_group(timedelta(seconds=self.ddp_timeout), bool(self.deepspeed))

    @property
    def prompts_per_step(self) -> int:
        """Prompts per optimizer step over all processes."""
        return self.prompts_per_device * self.world_size * self.gradient_accumulation_steps

    def filled_evaluation(self, questions: int) -> int:
        """How many of so many questions can be asked so that each counts the same: those that fill whole batches.

        TRL logs the mean of the batches' means, and accelerate begins anew where a batch is not full. Where the
        questions are fewer than one batch, it is made smaller; of fewer questions than processes some are asked twice.
        """
        group = self.num_generations_eval or int(self.num_generations or 1)
        each = min(self.per_device_eval_batch_size // group, max(1, questions // self.world_size))
        self.per_device_eval_batch_size = each * group
        at_once = each * self.world_size
        return questions // at_once * at_once or questions

    @property
    def completions_per_step(self) -> int:
        """Completions per optimizer step over all processes."""
        return self.prompts_per_step * int(self.num_generations or 0)


def open_process_group(timeout: timedelta, deepspeed: bool) -> None:
    """Open gloo's process group before transformers does, which on a CPU leaves the timeout out."""
    if deepspeed or os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true":
        # transformers opens torch's group alone, and ZeRO-3 then believes to be one process
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        import deepspeed as engine
        from deepspeed import ops

        # It would compile its shared-memory calls first, a minute in each new environment, for nothing that gloo
        # does not do here.
        ops.__compatible_ops__["deepspeed_shm_comm"] = False
        engine.init_distributed("gloo", verbose=False, timeout=timeout)
    else:
        torch.distributed.init_process_group("gloo", timeout=timeout)


class OneLineParser(TrlParser):
    """`TrlParser` whose errors are one line, without pages of usage, and which reads old keys."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.notes: list[str] = []

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help lists every flag)")

    def set_defaults_with_config(self, **kwargs: Any) -> list[str]:
        config, notes = translated(kwargs)
        self.notes += notes
        return super().set_defaults_with_config(**config)


def parse(
    arguments: list[str] | None = None, defaults: Mapping[str, Any] | None = None
) -> tuple[VQAArguments, GRPOTrainingConfig, ModelConfig]:
    """Read the command line, and the YAML file that `--config` names.

    Args:
        arguments: default: the program's own.
        defaults: what an entry sets where neither the command line nor the file does.

    Raises:
        UserError: for an unknown flag, a missing one or a value that cannot be.
    """
    return parse_into((VQAArguments, GRPOTrainingConfig, ModelConfig), arguments, defaults)


def parse_into(
    classes: tuple[type, type, type], arguments: list[str] | None, defaults: Mapping[str, Any] | None
) -> Any:
    """`parse` into any script arguments, training configuration with `notes`, and model configuration."""
    # the published flag and TRL 1.16 itself keep the old name, which works; nobody who trains can do anything about it
    warnings.filterwarnings("ignore", r"`(is_)?gradient_checkpointing` is deprecated", FutureWarning)
    given, notes = translated_flags(list(sys.argv[1:] if arguments is None else arguments))
    if "--config" in given:
        name = next(iter(given[given.index("--config") + 1 :]), None)
        if name is None or not Path(name).is_file():
            raise UserError(f"--config {name!r} is no file")
    parser = OneLineParser(classes, allow_abbrev=False)  # type: ignore[arg-type]
    parser.set_defaults_with_config(**(defaults or {}))
    try:
        script, training, model = parser.parse_args_and_config(given)
    except UserError:
        raise
    except Exception as error:  # of YAML, argparse, transformers or TRL: whatever they do not take
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        reason = " ".join(str(error).split())
        raise UserError(f"the flags or their --config file cannot be used: {kind}{reason}") from error
    if not model.model_name_or_path:
        raise UserError("--model_name_or_path is missing: name a checkpoint folder or org/repo:subfolder")
    training.notes += [*parser.notes, *notes]
    prepare_trackers(training)
    take_over_push(training)
    refuse_remote_code(training, model)
    return script, training, model


def refuse_remote_code(*arguments: Any) -> None:
    """Refuse `--trust_remote_code`: no family here needs the Python files that a checkpoint may bring.

    Raises:
        UserError: it is set.
    """
    if any(getattr(each, "trust_remote_code", False) for each in arguments):
        raise UserError(
            "--trust_remote_code would run code that a checkpoint brings, which nothing here needs; leave it out"
        )
