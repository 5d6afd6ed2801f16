"""The flags of an evaluation and their allowed values. It loads no torch, so that a typo is reported at once."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from open_r1.common.command_line import flag
from open_r1.common.errors import UserError
from open_r1.vocabulary.column_names import parse_columns
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import NAMED

ImageChange = Literal["shown", "none", "noise", "shuffled"]
OptionsChange = Literal["as_given", "shuffled"]
BACKENDS = ("transformers", "vllm")
RESIZES = ("processor", "qwen_vl_utils")
DTYPES = ("auto", "float32", "bfloat16", "float16")
_DEVICE = re.compile(r"(cpu|cuda|mps|xpu)(:\d+)?")


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn: `count` of each question at a temperature; temperature 0 is greedy."""

    count: int = 1
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"--samples {self.count} must be at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"--temperature {self.temperature} must be 0 (greedy) or a positive number")
        if self.count > 1 and self.temperature == 0:
            raise UserError(
                f"--samples {self.count} at --temperature 0 would be {self.count} times the same completion; "
                "set a temperature above 0, or leave --samples out"
            )

    @property
    def is_greedy(self) -> bool:
        """Whether each token is the most likely one."""
        return self.temperature == 0


@dataclass(frozen=True)
class InferenceSettings:
    """The flags of eval/infer.py."""

    model_path: str
    prompt_path: str
    output_path: str
    image_root: str | None = flag(None, "folder that the image paths of a JSON list are relative to")
    split: str = flag("test", "which questions: the name of a split")
    columns: str | None = flag(None, "other names of columns in the data: problem=question,solution=answer")
    processor: str | None = flag(None, "another checkpoint to take the processor from")
    base: str | None = flag(None, "base checkpoint of a LoRA adapter, where the one that the adapter names is missing")
    mode: str | None = flag(None, "default: as trained where the checkpoint says so, otherwise nothink", Mode)
    prompt: str | None = flag(None, "another prompt than the mode's training prompt", NAMED)
    batch_size: int = flag(64, "questions at a time")
    max_new_tokens: int = flag(256, "longest completion in tokens")
    min_pixels: int | None = flag(None, "smallest area of an image in pixels (default: the checkpoint's)")
    max_pixels: int | None = flag(None, "largest area of an image in pixels (default: the checkpoint's)")
    resize: str = flag("processor", "what sizes images: the processor alone, or qwen-vl-utils before it", RESIZES)
    limit: int | None = flag(None, "answer only that many questions, drawn by their ids")
    dtype: str = flag("auto", "auto: bfloat16 on a GPU that has it, otherwise float32", DTYPES)
    attn_implementation: str | None = flag(None, "sdpa (default), eager or flash_attention_2")
    device: str | None = flag(None, "cpu, cuda or cuda:1 (default: the GPU if there is one)")
    seed: int = flag(0, "seed of samples, noise and permutations; greedy decoding draws nothing")
    strict: bool = flag(False, "exit status 1 if a question could not be put to the model")
    train_path: str | None = flag(
        None, "training questions for the blind floor (default: the checkpoint's data or its train split)"
    )
    train_split: str = flag("train", "the training split there")
    image: ImageChange = flag("shown", "leave the image out, or show noise or another one", get_args(ImageChange))
    options: OptionsChange = flag("as_given", "permute the options; letters are mapped back", get_args(OptionsChange))
    samples: int = flag(1, "completions per question, for majority vote and pass@k")
    temperature: float | None = flag(None, "0 is greedy (default: 0, with several --samples 1)")
    letter_probs: bool = flag(False, "keep the probability of every offered letter where the answer is written")
    backend: str = flag("transformers", "vllm is an extra: pip install '.[vllm]'", BACKENDS)
    force: bool = flag(False, "score across split families all the same; every report says so")

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_new_tokens", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} {value} must be at least 1")
        parse_columns(self.columns)
        if self.mode is not None and self.mode not in list(Mode):
            raise UserError(f"--mode {self.mode!r} does not exist; choose one of {', '.join(Mode)}")
        if self.prompt is not None and self.prompt not in NAMED:
            raise UserError(f"--prompt {self.prompt!r} does not exist; choose one of {', '.join(NAMED)}")
        for name, choices in (
            ("image", get_args(ImageChange)),
            ("options", get_args(OptionsChange)),
            ("backend", BACKENDS),
            ("resize", RESIZES),
        ):
            if getattr(self, name) not in choices:
                raise UserError(f"--{name} {getattr(self, name)!r} does not exist; choose one of {', '.join(choices)}")
        if self.dtype not in DTYPES:
            raise UserError(f"--dtype {self.dtype!r} does not exist; choose one of {', '.join(DTYPES)}")
        if self.device is not None and not _DEVICE.fullmatch(self.device):
            raise UserError(f"--device {self.device!r} is not a device; use cpu, cuda or cuda:1")
        if not self.sampling.is_greedy and self.letter_probs:
            raise UserError(
                "--letter_probs is about the answer of greedy decoding; leave --samples and --temperature out"
            )
        if self.letter_probs and self.backend == "vllm":
            raise UserError("--letter_probs reads the logits of --backend transformers; leave --backend vllm out")

    @property
    def questions_at_once(self) -> int:
        """How many questions the backend is given at a time; vLLM makes its own batches of them.

        Results are written after each lot, so with vLLM a kill loses the answers to 1,024 questions at most.
        """
        return max(self.batch_size, 1024) if self.backend == "vllm" else self.batch_size

    @property
    def sampling(self) -> Sampling:
        """How completions are drawn; the default temperature of several samples is 1, as in training."""
        default = 1.0 if self.samples > 1 else 0.0
        return Sampling(self.samples, default if self.temperature is None else self.temperature, self.seed)

    @property
    def draws(self) -> bool:
        """Whether anything depends on the seed."""
        return not self.sampling.is_greedy or self.image in ("noise", "shuffled") or self.options == "shuffled"

    @property
    def where(self) -> str:
        """The device to run on: `device`, or else the GPU if there is one.

        Raises:
            UserError: `device` is a GPU that does not exist.
        """
        import torch

        has_gpu = torch.cuda.is_available()
        if self.device is not None and self.device.startswith("cuda") and not has_gpu:
            raise UserError(
                f"--device {self.device}: there is no GPU that torch can use; leave the flag out to run on the CPU"
            )
        return self.device or ("cuda" if has_gpu else "cpu")
