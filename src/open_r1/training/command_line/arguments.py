"""Our own arguments of the training commands: data, rewards, and the defaults of the published runs.

Imports no large library, so that `flags` can check a command line before torch, transformers or TRL is loaded.
"""

from dataclasses import dataclass, field

from open_r1.common.command_line import one_of
from open_r1.common.errors import UserError
from open_r1.rewards.registry import REWARDS, require_rewards
from open_r1.rewards.settings import RewardSettings
from open_r1.training.setup.curriculum import Curriculum
from open_r1.training.watching.alarms import NAMES as ALARMS
from open_r1.vocabulary.column_names import parse_columns
from open_r1.vocabulary.modes import Mode

OVERLONG = ("drop", "refuse")
TOWERS = ("language", "vision", "both")
SCALES = ("group", "batch", "none")
RECORDED = ("all", "scores", "none")
TRAINED_MODES = tuple(mode for mode in Mode if mode.is_trained)


@dataclass
class QuestionArguments:
    """Data and prompts; the same for GRPO and SFT."""

    dataset_name: list[str] = field(
        metadata={
            "help": "Prepared folder (data/VQA/CT_384), saved DatasetDict, Parquet or JSON Lines, JSON list with "
            "--image_root, or org/name on the hub; several are joined, with images or without."
        }
    )
    image_root: str | None = field(
        default=None, metadata={"help": "Folder that the image paths of a JSON list are relative to."}
    )
    dataset_train_split: str | None = field(
        default=None, metadata={"help": "Name of the split to train on (default: train)."}
    )
    dataset_test_split: str | None = field(
        default=None, metadata={"help": "With --eval_strategy: name of the split to evaluate (default: test)."}
    )
    columns: str | None = field(
        default=None,
        metadata={
            "help": "Other names of columns in the data: problem=question,solution=answer. A set without them "
            "is read by our names."
        },
    )
    exclude_overlap: list[str] | None = field(
        default=None,
        metadata={
            "help": "Data sets or hash files of eval/overlap.py: training questions with an image that is there, "
            "exactly or nearly, are left out. Of a set its splits other than train count.",
            "metavar": "SET",
        },
    )
    mode: str | None = field(
        default=None,
        metadata={
            "help": "Answer form; the default depends on the entry script.",
            "metavar": one_of(TRAINED_MODES),
        },
    )
    max_prompt_length: int = field(
        default=1024,
        metadata={"help": "Longest prompt in tokens, including the image's. A prompt is never cut."},
    )
    overlong_prompts: str = field(
        default="drop",
        metadata={
            "help": "What to do with longer prompts: drop them and report it, or refuse the data set.",
            "metavar": one_of(OVERLONG),
        },
    )
    max_pixels: int | None = field(
        default=None, metadata={"help": "Largest area of an image in pixels; larger images are scaled down."}
    )
    min_pixels: int | None = field(
        default=None, metadata={"help": "Smallest area of an image in pixels; smaller images are scaled up."}
    )
    eval_dataset_name: list[str] | None = field(
        default=None,
        metadata={
            "help": "With --eval_strategy: data sets whose test split is evaluated during training (default: "
            "those of --dataset_name). Results on questions that selected a checkpoint are biased: report on others."
        },
    )
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "With --eval_strategy: evaluate this many questions, always the same."}
    )
    base: str | None = field(
        default=None,
        metadata={
            "help": "With a LoRA adapter as --model_name_or_path: its base model, if the one in the adapter's config "
            "is not available."
        },
    )
    plan: str | None = field(
        default=None,
        metadata={
            "help": "Print what the run would hold on such GPUs (H100:2, 80GB:4, 24) and end; needs none and no data.",
            "metavar": "CARD:N",
        },
    )
    shard_optimizer: bool | None = field(
        default=None,
        metadata={
            "help": "Divide the optimizer among the processes, with the same result. Default: where memory asks."
        },
    )
    lora_on: str | None = field(
        default=None,
        metadata={
            "help": "With --use_peft: the part whose linear layers get adapters (default: language).",
            "metavar": one_of(TOWERS),
        },
    )

    def split_name(self, is_training: bool) -> str:
        """The split of the data sets to train on, or to evaluate during training."""
        return (self.dataset_train_split or "train") if is_training else (self.dataset_test_split or "test")

    vision_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Learning rate of the vision tower and its merger. Default: --learning_rate."},
    )

    def __post_init__(self) -> None:
        if self.vision_learning_rate is not None and not 0 < self.vision_learning_rate < 1:
            raise UserError(
                f"--vision_learning_rate {self.vision_learning_rate} must lie between 0 and 1; to leave the vision "
                "tower as it is use --freeze_vision_tower"
            )
        if isinstance(self.dataset_name, str):  # as a YAML file may write it
            self.dataset_name = [self.dataset_name]
        if isinstance(self.eval_dataset_name, str):
            self.eval_dataset_name = [self.eval_dataset_name]
        if isinstance(self.exclude_overlap, str):
            self.exclude_overlap = [self.exclude_overlap]
        if self.max_eval_samples is not None and self.max_eval_samples < 1:
            raise UserError(
                f"--max_eval_samples {self.max_eval_samples} would evaluate nothing; give a positive number"
            )
        parse_columns(self.columns)
        repeated = sorted({name for name in self.dataset_name if self.dataset_name.count(name) > 1})
        if repeated:
            raise UserError(f"--dataset_name names {repeated[0]} twice; name every data set once")
        if self.mode == Mode.DIRECT:
            raise UserError(
                "--mode direct is only for evaluating models that were not trained here; "
                f"train with one of {', '.join(TRAINED_MODES)}"
            )
        if self.mode is not None and self.mode not in TRAINED_MODES:
            raise UserError(f"--mode {self.mode!r} does not exist; choose one of {', '.join(TRAINED_MODES)}")
        if self.overlong_prompts not in OVERLONG:
            raise UserError(f"--overlong_prompts takes drop or refuse, not {self.overlong_prompts!r}")
        if self.lora_on is not None and self.lora_on not in TOWERS:
            raise UserError(f"--lora_on {self.lora_on!r} does not exist; choose one of {', '.join(TOWERS)}")
        if self.max_prompt_length < 1:
            raise UserError(
                f"--max_prompt_length {self.max_prompt_length} is not a length in tokens; give a positive number"
            )


@dataclass
class VQAArguments(RewardSettings, QuestionArguments):
    """Data, rewards and options of GRPO."""

    reward_funcs: list[str] = field(
        default_factory=lambda: ["accuracy", "format"],
        metadata={
            "help": f"Rewards by name: {', '.join(REWARDS)}; or of your own, as my_package.my_reward or "
            "my_file.py:my_reward. Weights: --reward_weights.",
            "metavar": "NAME",
        },
    )
    shared_prefix: bool = field(
        default=True,
        metadata={"help": "Compute image and prompt once per group; false runs stock TRL with a row per completion."},
    )
    verify_shared_prefix: bool = field(
        default=True,
        metadata={"help": "Compare the first group of the run with stock TRL's rows, and stop if they differ."},
    )
    freeze_vision_tower: bool = field(
        default=False,
        metadata={"help": "Train the language model only; the features of an image are computed once and cached."},
    )
    vision_cache_gib: float = field(
        default=8.0, metadata={"help": "Host memory in GiB per process for the features of a frozen vision tower."}
    )
    tokens_per_micro_batch: int | None = field(
        default=None,
        metadata={"help": "Most tokens in one forward pass; micro-batches with more are divided."},
    )
    resample_dead_groups: int = field(
        default=0,
        metadata={
            "help": "Most draws of further prompts to replace groups whose completions all have one reward; a prompt "
            "is used if it has correct and wrong completions. Draws come from the whole set, even with --curriculum."
        },
    )
    try_longest_batch: bool | None = field(
        default=None,
        metadata={
            "help": "Try the longest possible batch before step 1, to find out whether it fits. Default: on a GPU."
        },
    )
    record: str = field(
        default="all",
        metadata={
            "help": "What groups.jsonl in the output folder holds of a sample of groups: all, scores (neither "
            "completions nor problems), or none.",
            "metavar": one_of(RECORDED),
        },
    )
    probe_steps: int = field(
        default=0,
        metadata={
            "help": "Steps after which 64 training questions are asked without their images, for the alarm "
            "without_image; 0 asks none. Not with --mode think."
        },
    )
    stop_on_alarm: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Alarms that end the run, with a checkpoint and exit status 77 (docs/training.md lists them); by "
            "default they are lines in the log.",
            "metavar": "NAME",
        },
    )
    log_completions_publicly: bool = field(
        default=False,
        metadata={"help": "With --log_completions_hub_repo: make that repository public; it is private otherwise."},
    )

    difficulty: str | None = field(
        default=None,
        metadata={"help": "File with the pass rates of the questions, from scripts/grade_difficulty.py."},
    )
    curriculum: str = field(
        default="none",
        metadata={
            "help": "With --difficulty: none shuffles, easy_to_hard sorts by falling pass rate, mixed gives every "
            "generation batch a share of --hard_fraction hard questions.",
            "metavar": one_of(Curriculum),
        },
    )
    hard_fraction: float | None = field(
        default=None, metadata={"help": "With --curriculum mixed: share of hard questions, 0 to 1."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.reward_funcs, str):  # as a YAML file may write it
            self.reward_funcs = [self.reward_funcs]
        if isinstance(self.stop_on_alarm, str):
            self.stop_on_alarm = [self.stop_on_alarm]
        require_rewards(self.reward_funcs)
        if bool(self.judge) != ("judge" in self.reward_funcs):
            raise UserError(
                "--reward_funcs judge and --judge URL MODEL belong together: one names the reward, the other the model"
            )
        self.check()
        self._check_curriculum()
        if self.tokens_per_micro_batch is not None and self.tokens_per_micro_batch < 1:
            raise UserError(
                f"--tokens_per_micro_batch {self.tokens_per_micro_batch} is not a number of tokens; try 4096"
            )
        if self.probe_steps < 0:
            raise UserError(f"--probe_steps {self.probe_steps} is not a number of steps; 0 turns it off")
        if self.record not in RECORDED:
            raise UserError(f"--record {self.record!r} does not exist; choose one of {', '.join(RECORDED)}")
        unknown = [name for name in self.stop_on_alarm if name not in ALARMS]
        if unknown:
            raise UserError(f"--stop_on_alarm {unknown[0]!r}: there is no such alarm; choose from {', '.join(ALARMS)}")
        if self.resample_dead_groups < 0:
            raise UserError(
                f"--resample_dead_groups {self.resample_dead_groups} is not a number of draws; 0 turns it off"
            )
        if not self.shared_prefix and (self.tokens_per_micro_batch or self.resample_dead_groups):
            raise UserError(
                "--tokens_per_micro_batch and --resample_dead_groups need the shared prefix; leave them or "
                "--shared_prefix false out"
            )

    def _check_curriculum(self) -> None:
        if self.curriculum not in list(Curriculum):
            raise UserError(f"--curriculum {self.curriculum!r} does not exist; choose one of {', '.join(Curriculum)}")
        is_ordered, is_mixed = self.curriculum != Curriculum.NONE, self.curriculum == Curriculum.MIXED
        if is_ordered and self.difficulty is None:
            raise UserError(
                f"--curriculum {self.curriculum} needs --difficulty, a file from scripts/grade_difficulty.py"
            )
        if self.difficulty is not None and not is_ordered:
            raise UserError("--difficulty does nothing without --curriculum; add one or leave it out")
        if is_mixed != (self.hard_fraction is not None):
            raise UserError(
                "--hard_fraction and --curriculum mixed belong together; "
                + ("give a share of hard questions" if is_mixed else "leave --hard_fraction out")
            )


@dataclass
class GRPODefaults:
    """The arguments of `trl.GRPOConfig` whose defaults here are those of the published runs."""

    learning_rate: float = field(default=1e-6, metadata={"help": "Peak learning rate (AdamW, linear decay)."})
    beta: float = field(
        default=0.04, metadata={"help": "Weight of the KL term; its reference is the frozen starting model."}
    )
    loss_type: str = field(default="grpo", metadata={"help": "Loss; grpo averages over each sequence."})
    num_generations: int | None = field(default=4, metadata={"help": "Completions per prompt (G)."})
    scale_rewards: str | None = field(
        default=None,
        metadata={
            "help": "Standard deviation by which advantages are divided: of the group, the batch, or none (default: "
            "group; none with the reward looking).",
            "metavar": one_of(SCALES),
        },
    )
    max_completion_length: int | None = field(default=256, metadata={"help": "Longest completion in tokens."})
    # TRL's field is `bool | None`, for which a bare `--bf16`, as in the published commands, is an error.
    bf16: bool = field(default=False, metadata={"help": "bfloat16 mixed precision; the weights stay float32."})
    gradient_checkpointing: bool = field(
        default=False, metadata={"help": "Save activation memory for about a fifth more compute."}
    )
    per_device_train_batch_size: int = field(
        default=1,
        metadata={"help": "Prompts per device and micro-batch; each has num_generations completions."},
    )
    per_device_eval_batch_size: int = field(default=8, metadata={"help": "Prompts per device in evaluation."})
    remove_unused_columns: bool | None = field(
        default=False, metadata={"help": "Keep false: rewards read the columns problem and solution."}
    )
    log_multimodal: bool = field(
        default=False,
        metadata={"help": "Not supported: it would upload patients' images."},
    )

    def __post_init__(self) -> None:
        if not self.num_generations or self.num_generations < 2:
            raise UserError(
                f"--num_generations {self.num_generations}: a group needs at least 2 completions to compare"
            )


@dataclass
class SFTDefaults:
    """The arguments of `trl.SFTConfig` whose defaults here are those of Med-R1's baseline."""

    learning_rate: float = field(default=2e-5, metadata={"help": "Peak learning rate (AdamW)."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning rate schedule."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Warm-up steps; below 1 a fraction of all steps."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the data."})
    per_device_train_batch_size: int = field(default=8, metadata={"help": "Questions per device and micro-batch."})
    gradient_accumulation_steps: int = field(
        default=16, metadata={"help": "Micro-batches per optimizer step: 8 x 16 = 128 questions on one device."}
    )
    # TRL's field is `bool | None`, for which a bare `--bf16` is an error.
    bf16: bool = field(default=False, metadata={"help": "bfloat16 mixed precision; the weights stay float32."})
    gradient_checkpointing: bool = field(
        default=False, metadata={"help": "Save activation memory for about a fifth more compute."}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Not supported: it would cut prompts; use --max_prompt_length."}
    )
    remove_unused_columns: bool | None = field(
        default=False, metadata={"help": "Keep false: prompts are made from the columns of the data set."}
    )

    def __post_init__(self) -> None:
        if self.max_length is not None:
            raise UserError(
                f"--max_length {self.max_length} would cut prompts and their images' tokens; "
                "use --max_prompt_length, which drops longer prompts"
            )
