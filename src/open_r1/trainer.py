"""GRPO on whole groups: TRL's trainer with the prompt, its pictures and its vision features computed once per group.

Everything that is not grouping stays TRL's: losses, advantages, LoRA, DeepSpeed, logging, checkpoints. The overrides
below only change what travels through TRL's own steps: one prompt where it expects one per completion. With
`shared_prefix` off they all step aside and the run is stock TRL, which is what the tests hold this file against.

Written for trl 1.16.0; tests/test_trainer.py pins the signatures of the private methods overridden here.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import torch
from PIL import Image
from transformers import PreTrainedModel
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from open_r1.checkpoints import forbidden_token_ids
from open_r1.rollout import PromptBatch, completion_lengths, inner_model, prompt_positions, sample_groups
from open_r1.shared_prefix import ATTENTION, pack, score_last_positions
from open_r1.step_meter import StepMeter, peak_flops, useful_flops

OpenPicture = Callable[[dict[str, Any]], Image.Image | None]
DECODING_THREADS = 4
# Completion tokens of a group from which it attends segment by segment. On a CPU one 4D mask does well at 160 tokens;
# at 16 x 128 a pass took 875 ms under it and 278 ms by segment (benchmarks/grpo_step.py).
LONG_SEGMENTS = 256
# Mean difference of log-probabilities between the two ways. Observed on tiny models: 3e-7 in float32, 2.4e-3 in
# bfloat16. Large models round more; what is wrong (a picture, a position, a leak) moves them further still.
VERIFY_LIMIT = 1e-4
VERIFY_LIMIT_HALF = 0.1


class SharedPrefixGRPOTrainer(GRPOTrainer):
    """`trl.GRPOTrainer` for rows with an undecoded picture.

    Args:
        open_picture: turns a row into its RGB picture, or None for a text-only row. Called once per prompt.
        shared_prefix: false runs stock TRL, a row per completion.
        verify: hold the first group of the first training pass against stock TRL's rows and stop if they differ.
        **kwargs: those of `trl.GRPOTrainer`. `args.per_device_train_batch_size` counts completions here, as in TRL.

    Raises:
        ValueError: if a micro-batch would not hold whole groups.
    """

    # The base classes allow None or less here than this trainer ever holds.
    model: Any
    model_wrapped: Any
    args: Any
    processing_class: Any
    num_generations: int
    num_generations_eval: int

    def __init__(
        self, *, open_picture: OpenPicture, shared_prefix: bool = True, verify: bool = True, **kwargs: Any
    ) -> None:
        self._open_picture = open_picture
        self._prompts: PromptBatch | None = None
        self._verify_next = verify
        self._live: list[int] | None = None
        self._filler: torch.Tensor | None = None
        self.meter = StepMeter()
        self._decoders = ThreadPoolExecutor(DECODING_THREADS, thread_name_prefix="decode")
        super().__init__(**kwargs)
        self.shared_prefix = shared_prefix and not self.use_vllm
        if self.shared_prefix and self.args.per_device_train_batch_size % self.num_generations:
            raise ValueError(
                f"per_device_train_batch_size ({self.args.per_device_train_batch_size} completions) is no multiple "
                f"of num_generations ({self.num_generations}): a group must lie in one micro-batch to share its prefix"
            )
        if not self.use_vllm:
            self.generation_config.suppress_tokens = forbidden_token_ids(self.model.config)
        if self.shared_prefix:
            for each in (self.model, self.ref_model):
                prepare_model(each)

    def path_line(self) -> str:
        """One line: which way sampling and training go, and why where it is not the shared prefix."""
        if self.shared_prefix:
            return "shared prefix: on (picture, vision tower and prompt once per group, in sampling and in training)"
        reason = "vLLM samples" if self.use_vllm else "--shared_prefix false"
        return f"shared prefix: off ({reason}); stock TRL computes every prompt once per completion"

    @property
    def _group_size(self) -> int:
        return self.num_generations if self.model.training else self.num_generations_eval

    # --- pictures and prompts: once per prompt -------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's step over B * G rows; its tensors come back group-major, (B, G, ...), so that groups stay whole."""
        with self.meter.phase("rollout"):
            if not self.shared_prefix:
                return super()._generate_and_score_completions(self._with_pictures(inputs))
            return self._generate_and_score_groups(inputs)

    def _generate_and_score_groups(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        group = self._group_size
        firsts = inputs[::group]
        assert all(row["prompt"] == firsts[i // group]["prompt"] for i, row in enumerate(inputs)), "a group was split"
        self._prompts = prompts = self._encode(firsts)
        text_rows = [{key: value for key, value in row.items() if key != "image"} for row in inputs]
        scored = super()._generate_and_score_completions(text_rows)
        grouped: dict[str, Any] = {
            key: value.reshape(len(firsts), group, *value.shape[1:])
            for key, value in scored.items()
            if isinstance(value, torch.Tensor) and value.ndim and key not in ("prompt_ids", "prompt_mask")
        }
        grouped |= {"prompt_ids": prompts.ids, "prompt_mask": prompts.mask, **prompts.vision}
        if any(prompts.pictures_per_prompt):
            grouped["num_images"] = prompts.pictures_per_prompt
        return grouped | {"num_items_in_batch": scored["num_items_in_batch"]}

    def _with_pictures(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows as stock TRL wants them, with decoded pictures."""
        group = self._group_size
        pictures = list(self._decoders.map(self._open_picture, rows[::group]))
        if all(picture is None for picture in pictures):
            return [{key: value for key, value in row.items() if key != "image"} for row in rows]
        return [{**row, "image": pictures[i // group]} for i, row in enumerate(rows)]

    def _encode(self, rows: list[dict[str, Any]]) -> PromptBatch:
        """Tokenize each prompt and process each picture once."""
        options = cast(dict[str, Any], self.chat_template_kwargs)
        texts = [
            self.processing_class.apply_chat_template(
                row["prompt"], tokenize=False, add_generation_prompt=True, **options
            )
            for row in rows
        ]
        pictures = list(self._decoders.map(self._open_picture, rows))
        opened = [picture for picture in pictures if picture is not None]
        picture_argument: dict[str, Any] = {"images": opened} if opened else {}
        encoded = self.processing_class(
            text=texts, padding=True, padding_side="left", return_tensors="pt", **picture_argument
        ).to(self.accelerator.device)
        names = ("pixel_values", "image_grid_thw", "mm_token_type_ids")
        vision = {name: encoded[name] for name in names if name in encoded} if opened else {}
        return PromptBatch(
            encoded["input_ids"], encoded["attention_mask"], [int(p is not None) for p in pictures], vision
        )

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list) -> torch.Tensor:
        with self.meter.phase("reward"):
            return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)

    def training_step(self, model, inputs, num_items_in_batch) -> torch.Tensor:
        """TRL's micro-step; at the end of an optimizer step its cost joins the logged metrics."""
        with self.meter.phase("step"):
            loss = super().training_step(model, inputs, num_items_in_batch)
        if self._step % self.current_gradient_accumulation_steps == 0:
            for name, value in self.meter.flush(peak_flops()).items():
                self._metrics["train"][name].append(value)
        return loss

    # --- sampling: one prefill per prompt ------------------------------------------------------------------------

    def _tokenize_prompts(self, prompts: list) -> tuple[list[list[int]], list | None, dict[str, Any]]:
        if not self.shared_prefix:
            return super()._tokenize_prompts(prompts)
        assert self._prompts is not None
        tokens = [row[mask.bool()].tolist() for row, mask in zip(self._prompts.ids, self._prompts.mask, strict=True)]
        return [row for row in tokens for _ in range(self._group_size)], None, {}

    def _generate_single_turn(
        self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False
    ) -> tuple[list[list[int]], list | None]:
        if not self.shared_prefix:
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
        assert self._prompts is not None
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                generation_kwargs=self.generation_kwargs,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as unwrapped,
            self._dist.summon_full_params(self.model_wrapped, recurse=False),
        ):
            tokens = sample_groups(
                cast(PreTrainedModel, unwrapped), self._prompts, self._group_size, self.generation_config
            )
        forbidden = torch.tensor(self.generation_config.suppress_tokens or [], device=tokens.device)
        assert not torch.isin(tokens, forbidden).any(), "a picture token was sampled"
        lengths = completion_lengths(tokens, self.eos_token_ids)
        return [row[:length].tolist() for row, length in zip(tokens.cpu(), lengths.tolist(), strict=True)], None

    # --- training: one packed forward per micro-batch ------------------------------------------------------------

    def _compute_loss(self, model, inputs: dict[str, Any]) -> torch.Tensor:
        if not self.shared_prefix:
            return super()._compute_loss(model, inputs)
        batch, group = inputs["completion_ids"].shape[:2]
        vision = {
            name: inputs[name]
            for name in ("pixel_values", "image_grid_thw", "mm_token_type_ids")
            if inputs.get(name) is not None
        }
        counts = inputs.get("num_images") or [0] * batch
        self._prompts = PromptBatch(inputs["prompt_ids"], inputs["prompt_mask"], counts, vision)
        rows = {
            key: value.flatten(0, 1)
            for key, value in inputs.items()
            if isinstance(value, torch.Tensor)
            and value.ndim >= 2
            and value.shape[:2] == (batch, group)
            and key not in ("prompt_ids", "prompt_mask", *vision)
        }
        self._live = self._groups_with_a_gradient(inputs["advantages"])
        self._filler = inputs.get("old_per_token_logps")
        rows["prompt_ids"] = inputs["prompt_ids"].repeat_interleave(group, dim=0)
        rows["prompt_mask"] = inputs["prompt_mask"].repeat_interleave(group, dim=0)
        try:
            return super()._compute_loss(model, rows | {"num_items_in_batch": inputs["num_items_in_batch"]})
        finally:
            self._live = None

    def _groups_with_a_gradient(self, advantages: torch.Tensor) -> list[int] | None:
        """Groups (B, G) to compute in this pass; None for all.

        Where all completions earned the same the advantages are zero, and without a KL or entropy term so is the
        gradient. One group is always computed, so that every process makes the same calls.
        """
        if not self.model.training or self.beta or self._entropy_bonus_enabled:
            return None
        live = advantages.abs().amax(dim=1).nonzero().flatten().tolist()
        self._metrics["train"]["groups_left_out"].append(1 - max(len(live), 1) / len(advantages))
        return (live or [0]) if len(live) < len(advantages) else None

    def _get_per_token_logps_and_entropies(
        self,
        model,
        input_ids,
        attention_mask,
        logits_to_keep,
        batch_size=None,
        compute_entropy=False,
        compute_aux_loss=False,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """(B * G, C) log-probabilities and entropies of the completions, each prompt computed once."""
        if not self.shared_prefix:
            return super()._get_per_token_logps_and_entropies(
                model,
                input_ids,
                attention_mask,
                logits_to_keep,
                batch_size=batch_size,
                compute_entropy=compute_entropy,
                compute_aux_loss=compute_aux_loss,
                **kwargs,
            )
        prompts = self._prompts
        assert prompts is not None
        total, length = len(prompts.ids), logits_to_keep
        group = input_ids.size(0) // total
        completions = input_ids[:, -length:].reshape(total, group, length)
        mask = attention_mask[:, -length:].reshape(total, group, length)
        all_groups = total
        if self._live is not None:
            prompts, completions, mask = prompts.select(self._live), completions[self._live], mask[self._live]
            total = len(self._live)
        step = max(1, (batch_size or total * group) // group)
        logps, entropies = [], []
        for start in range(0, total, step):
            part = slice(start, start + step)
            chunk = prompts.slice(start, min(start + step, total))
            with torch.no_grad():
                positions, _ = prompt_positions(self.accelerator.unwrap_model(model), chunk)
                by_segment = group * length > LONG_SEGMENTS
                packed = pack(chunk.ids, chunk.mask, positions, completions[part], mask[part], by_segment)
            with self.accelerator.autocast():
                outputs = model(**packed.model_inputs(), **chunk.model_inputs())
            logps.append(outputs.log_probs.view(-1, length))
            entropies.append(outputs.entropy.view(-1, length) if compute_entropy else None)
        self._count_tokens(prompts, mask)
        if self._verify_next and torch.is_grad_enabled():
            self._verify_next = False
            self._verify(model, prompts.slice(0, 1), completions[0], mask[0], logps[0][:group])
        joined, entropy = torch.cat(logps), torch.cat(entropies) if compute_entropy else None
        if self._live is not None:
            # A group that was left out has advantage zero; a ratio of one keeps its zero from becoming 0 * inf.
            filler = joined.new_zeros(all_groups, group, length) if self._filler is None else self._filler
            joined = _spread(joined, self._live, filler)
            if entropy is not None:  # it does not show in the mean that is logged
                mean = (entropy.detach() * mask.flatten(0, 1)).sum() / mask.sum().clamp(min=1)
                entropy = _spread(entropy, self._live, mean.expand(all_groups, group, length))
        return joined, entropy, None

    def _verify(
        self, model: Any, prompt: PromptBatch, ids: torch.Tensor, mask: torch.Tensor, ours: torch.Tensor
    ) -> None:
        """Compare one group's log-probabilities with those of stock TRL's rows.

        Raises:
            RuntimeError: they differ by more than rounding, with the difference.
        """
        group, length = ids.shape
        repeated: dict[str, Any] = {name: torch.cat([value] * group) for name, value in prompt.vision.items()}
        if repeated:
            kinds = repeated["mm_token_type_ids"]
            repeated["mm_token_type_ids"] = torch.cat([kinds, kinds.new_zeros(group, length)], dim=1)
            repeated["num_images"] = prompt.pictures_per_prompt * group
        with torch.no_grad():
            stock, _, _ = super()._get_per_token_logps_and_entropies(
                model,
                torch.cat([prompt.ids.expand(group, -1), ids], dim=1),
                torch.cat([prompt.mask.expand(group, -1), mask], dim=1),
                length,
                **repeated,
            )
        difference = ((ours.detach() - stock).abs() * mask).float()
        mean, largest = (difference.sum() / mask.sum().clamp(min=1)).item(), difference.max().item()
        half = torch.is_autocast_enabled(stock.device.type) or self.model.dtype != torch.float32
        limit = VERIFY_LIMIT_HALF if half else VERIFY_LIMIT
        if not mean <= limit:
            raise RuntimeError(
                f"the shared prefix does not agree with a row per completion: log-probabilities differ by {mean:.2e} "
                f"on average and {largest:.2e} at most, over the limit of {limit:.0e}; training would be wrong. "
                "Run with --shared_prefix false, and report this with the versions in run.json"
            )
        if self.accelerator.is_main_process:
            print(
                f"shared prefix verified on {int(mask.sum())} tokens: mean difference {mean:.1e}, largest {largest:.1e}"
            )

    def _count_tokens(self, prompts: PromptBatch, completion_mask: torch.Tensor) -> None:
        """Count what one pass over these groups computed, and what a row per completion would have."""
        backward = torch.is_grad_enabled()
        prefix = prompts.mask.sum(dim=1) - 1  # (B,)
        completions = completion_mask.sum(dim=(1, 2))  # (B,)
        group = completion_mask.size(1)
        ours = float((prefix + completions).sum())
        self.meter.count("computed", ours)
        self.meter.count("stock", float((group * (prefix + 1) + completions).sum()))
        if backward:
            self.meter.count("prompts", len(prompts.ids))
            self.meter.count("completions", len(prompts.ids) * group)
        if torch.cuda.is_available():
            patches = float(prompts.vision["image_grid_thw"].prod(dim=-1).sum()) if prompts.vision else 0.0
            flops = useful_flops(
                self.accelerator.unwrap_model(self.model), ours, float(completions.sum()), patches, backward
            )
            self.meter.count("flops", flops)


def _spread(values: torch.Tensor, groups: list[int], filler: torch.Tensor) -> torch.Tensor:
    """(len(groups) * G, C) values at their places among all groups (B, G, C), `filler` elsewhere; (B * G, C)."""
    index = torch.tensor(groups, device=values.device)
    return filler.clone().index_copy(0, index, values.view(len(groups), *filler.shape[1:])).flatten(0, 1)


def prepare_model(model: Any) -> None:
    """Let a model take packed rows: its language model's attention and its head's share of the work."""
    if model is None:
        return
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    inner = getattr(inner, "module", inner)
    use_attention(inner, ATTENTION)
    score_last_positions(inner_model(inner))


def use_attention(model: Any, name: str) -> None:
    """Give the language model another attention implementation; the vision tower keeps its own."""
    model.set_attn_implementation({"text_config": name} if hasattr(model.config, "vision_config") else name)
