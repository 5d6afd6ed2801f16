"""GRPO on whole groups: TRL's trainer with the prompt, its images and its vision features computed once per group.

Everything that is not grouping stays TRL's: losses, advantages, LoRA, DeepSpeed, logging, checkpoints. The overrides
below give TRL's steps one prompt where they expect one per completion. Without `shared_prefix` the run is stock TRL's.
Written for trl 1.16.0; tests/support/seams.py has the signatures of the private methods overridden here.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, cast

import torch
from transformers import PreTrainedModel
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from open_r1.checkpoints.families import forbidden_token_ids, windowed_layers
from open_r1.modeling.image_tokens import encode_prompts, take_features
from open_r1.modeling.packed_rows import use_small_tiles_without_gpu
from open_r1.modeling.prompt_batch import PromptBatch, completion_lengths, inner_model
from open_r1.modeling.segment_attention import prepare_model
from open_r1.modeling.sharding import fsdp_is_asked, weights_are_sharded
from open_r1.training.grpo.groups import ScoredGroups, Values
from open_r1.training.grpo.image_feed import ImageFeed, ImageKey, OpenImages, encode_image, without_images
from open_r1.training.grpo.micro_batches import backward, divided, loss_weights, merge_metrics, token_shares, trimmed
from open_r1.training.grpo.options import require_compatible, require_served
from open_r1.training.grpo.packed_scoring import GroupPass, live_groups, score_groups
from open_r1.training.grpo.resampling import CORRECT, further_rows, replace_dead_groups
from open_r1.training.grpo.rollout import sample_groups
from open_r1.training.grpo.step_meter import StepMeter, peak_flops
from open_r1.training.grpo.verification import active_dropout, evaluating, require_agreement, stock_rows
from open_r1.training.recovery.epoch_sampler import EpochOrder, OrderedSampler, order_of
from open_r1.training.recovery.resumable_trainer import Durable
from open_r1.training.setup.readable_rows import ReadableRows
from open_r1.training.setup.tracking import completions_repository

IMAGE_TENSORS = ("pixel_values", "image_grid_thw", "mm_token_type_ids")


class SharedPrefixGRPOTrainer(Durable, GRPOTrainer):
    """`trl.GRPOTrainer` for rows with undecoded images.

    Args:
        open_images: turns a row into its RGB images, none for a text-only row. Called once per prompt.
        image_key: what tells the images of rows apart; equal ones are processed once per batch.
        shared_prefix: false runs stock TRL, a row per completion.
        share_rollout: false samples as stock TRL does and shares the prefix in training alone (always so with vLLM).
        verify: hold the first group of the first training pass against stock TRL's rows and stop if they differ.
        tokens_per_micro_batch: divide the prompts of a micro-batch further, so that one forward pass holds at most
            so many tokens; None computes them at once. The step stays the same.
        resample_dead_groups: rounds of further prompts to draw for groups whose completions all earned the same.
        vision_cache_gib: memory for the features of a vision tower that is frozen.
        order: places of the questions of an epoch, as `ordered_sampler` wants them; None lets TRL shuffle.
        publish_completions: make the repository `args.log_completions_hub_repo` a public one.
        **kwargs: those of `trl.GRPOTrainer`. `args.per_device_train_batch_size` counts completions here, as in TRL.

    Raises:
        UserError: if a micro-batch would not hold whole groups, options exclude each other, or one is not served
            (`trl_options`).
    """

    # The base classes allow None or less here than this trainer ever holds.
    model: Any
    model_wrapped: Any
    args: Any
    processing_class: Any
    num_generations: int
    num_generations_eval: int
    accelerator: Any
    train_dataset: Any

    def __init__(
        self,
        *,
        open_images: OpenImages,
        image_key: ImageKey | None = None,
        shared_prefix: bool = True,
        share_rollout: bool = True,
        verify: bool = True,
        tokens_per_micro_batch: int | None = None,
        resample_dead_groups: int = 0,
        vision_cache_gib: float = 8.0,
        order: EpochOrder | None = None,
        publish_completions: bool = False,
        **kwargs: Any,
    ) -> None:
        self._order = order
        self._pass: GroupPass | None = None
        self._buffered_prompts: dict[str, PromptBatch] = {}
        self._verify_next = verify
        self.meter = StepMeter()
        require_served(kwargs, shared_prefix)
        use_small_tiles_without_gpu()
        with completions_repository(kwargs["args"], publish_completions):
            super().__init__(**kwargs)
        self.reward_funcs = [self.rewards_guard.guarded(each) for each in self.reward_funcs]
        self.windowed = windowed_layers(self.model.config) if shared_prefix else 0
        self.shared_prefix = shared_prefix and not self.windowed
        self._may_share_rollout = share_rollout and not self.use_vllm
        self.tokens_per_micro_batch, self.resample_dead_groups = tokens_per_micro_batch, resample_dead_groups
        self.images = ImageFeed(
            open_images,
            image_key,
            getattr(self.processing_class, "image_processor", None),
            self.accelerator.device,
        )
        self.readable = ReadableRows(self.images)
        require_compatible(self)
        if not self.use_vllm:
            asked = (self.args.generation_kwargs or {}).get("suppress_tokens") or []
            self.generation_config.suppress_tokens = [*forbidden_token_ids(self.model.config), *asked]
        if self.shared_prefix:
            for each in (self.model, self.ref_model):
                prepare_model(each)
            # Of sharded weights a process cannot use its tower alone, so each image is encoded anew, by all together.
            if image_key is not None and self.vision_tower_is_frozen and not weights_are_sharded():
                for each in (self.model, self.ref_model):
                    if each is not None:
                        take_features(inner_model(each).visual)
                self.images.keep_features(partial(encode_image, self.accelerator, self.model), vision_cache_gib)

    def _get_train_sampler(self, dataset=None) -> Any:
        like: Any = super()._get_train_sampler(dataset)
        self._sampler = OrderedSampler(like, self._order or order_of(like))
        return self._sampler

    def _begin_epoch(self, epoch: int) -> None:
        # not left to the data loader: a continued run wraps its sampler once more, out of the reach of set_epoch
        self._sampler.set_epoch(epoch)

    def _may_save_here(self) -> bool:
        """Between two uses of the same completions a run cannot be continued: they are not saved."""
        return self._step % (self.args.steps_per_generation * self.num_iterations) == 0

    @property
    def share_rollout(self) -> bool:
        """Whether a group is sampled from one prefill."""
        return self.shared_prefix and self._may_share_rollout

    @property
    def _vision_is_shared(self) -> bool:
        """Whether other processes wait for this one's calls of the vision tower."""
        if self.accelerator.num_processes == 1 or not hasattr(inner_model(self.model), "visual"):
            return False
        return weights_are_sharded() or not self.vision_tower_is_frozen

    @property
    def vision_tower_is_frozen(self) -> bool:
        """Whether there is a vision tower and nothing of it trains."""
        tower = getattr(inner_model(self.model), "visual", None)
        return tower is not None and not any(weight.requires_grad for weight in tower.parameters())

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """As the Trainer's; it is no part of a step, so what it costs is not counted as such."""
        with self.meter.paused():
            return super().evaluate(*arguments, **options)

    @property
    def _group_size(self) -> int:
        return self.num_generations if self.model.training else self.num_generations_eval

    # --- images and prompts: once per prompt -------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's step over B * G rows; its tensors come back group-major, (B, G, ...), so that groups stay whole."""
        with self.meter.phase("rollout"):
            if not self.shared_prefix:
                return super()._generate_and_score_completions(self._with_images(self._that_open(inputs)))
            return self._generate_and_score_groups(inputs)

    def _that_open(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows, without those whose images have stopped to open since training began."""
        dataset = self.train_dataset if self.model.training else self.eval_dataset
        return self.readable(inputs, self._group_size, dataset)

    def _generate_and_score_groups(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        mode = "train" if self.model.training else "eval"
        groups, total = self._sample_and_score(inputs)
        if mode == "train" and self.resample_dead_groups:
            groups = self._resampled(groups)
            total = self.accelerator.gather(groups.values["completion_mask"].sum()).sum()
        # The prompts stay here and TRL's buffer carries their numbers: images need no shuffling and splitting.
        self._buffered_prompts[mode] = groups.prompts
        numbers = torch.arange(len(groups.prompts.ids), device=groups.prompts.ids.device)
        return groups.values | {"prompt_number": numbers, "num_items_in_batch": total}

    def _sample_and_score(self, inputs: list[dict[str, Any]]) -> tuple[ScoredGroups, torch.Tensor]:
        """TRL's rollout of B prompts, given as B * G rows; and the completion tokens of all processes."""
        group = self._group_size
        inputs = self._that_open(inputs)
        firsts = inputs[::group]
        assert all(row["prompt"] == firsts[i // group]["prompt"] for i, row in enumerate(inputs)), "a group was split"
        rows = without_images(inputs) if self.share_rollout else self._with_images(inputs)
        with self._working_on(GroupPass(self._encode_rows(firsts))) as current:
            scored = super()._generate_and_score_completions(rows)
        taken = ("prompt_ids", "prompt_mask", "num_items_in_batch", *IMAGE_TENSORS)
        values = {
            name: value.reshape(len(firsts), group, *value.shape[1:])
            for name, value in scored.items()
            if isinstance(value, torch.Tensor) and name not in taken
        }
        mine = self.accelerator.process_index * len(inputs)
        rewards = current.rewards[mine : mine + len(inputs)].view(len(firsts), group, -1)
        return ScoredGroups(current.prompts, values, rewards), scored["num_items_in_batch"]

    @contextmanager
    def _working_on(self, groups: GroupPass) -> Iterator[GroupPass]:
        """TRL's own steps within the block are about these groups."""
        outer, self._pass = self._pass, groups
        try:
            yield groups
        finally:
            self._pass = outer

    @property
    def _current(self) -> GroupPass:
        assert self._pass is not None, "TRL asks about rows outside of a pass"
        return self._pass

    def _resampled(self, groups: ScoredGroups) -> ScoredGroups:
        """`groups` with dead ones replaced. What is drawn leaves no trace in the logged rewards."""
        metrics = self._metrics["train"]
        before = {name: len(values) for name, values in metrics.items()}
        groups, dead, replaced = replace_dead_groups(
            groups,
            self.resample_dead_groups,
            self._further_groups,
            lambda number: self._over_processes(number, "max"),
            self.reward_weights.to(groups.rewards.device),
            next(i for i, name in enumerate(self.reward_func_names) if name in CORRECT),
            cast(int, self._tokenizer.pad_token_id),
        )
        for name, values in metrics.items():
            del values[before.get(name, 0) :]
        count = len(groups.prompts.ids)
        metrics["groups_dead"].append(self._over_processes(dead, "mean") / count)
        metrics["groups_replaced"].append(self._over_processes(replaced, "mean") / count)
        return groups

    def _further_groups(self, count: int, attempt: int) -> ScoredGroups:
        seed = self.args.seed, self.state.global_step, self._step % self.args.gradient_accumulation_steps, attempt
        processes = self.accelerator.process_index, self.accelerator.num_processes
        indices = further_rows(len(self.train_dataset), count, seed, *processes)
        groups, _ = self._sample_and_score([self.train_dataset[i] for i in indices for _ in range(self._group_size)])
        return groups

    def _over_processes(self, number: float, reduction: str) -> float:
        gathered = self.accelerator.gather(torch.tensor([float(number)], device=self.accelerator.device))
        return (gathered.max() if reduction == "max" else gathered.mean()).item()

    def _with_images(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows as stock TRL wants them, with decoded images."""
        group = self._group_size
        images = self.images.images(rows[::group])
        plain = without_images(rows)
        if not any(images):
            return plain
        return [{**row, "images": images[i // group]} for i, row in enumerate(plain)]

    def _encode_rows(self, rows: list[dict[str, Any]]) -> PromptBatch:
        """Tokenize each prompt and process each image once."""
        options = cast(dict[str, Any], self.chat_template_kwargs)
        texts = [
            self.processing_class.apply_chat_template(
                row["prompt"], tokenize=False, add_generation_prompt=True, **options
            )
            for row in rows
        ]
        return encode_prompts(texts, self.images(rows), self.processing_class, self.accelerator.device)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list) -> torch.Tensor:
        with self.meter.phase("reward"):
            rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
            self.rewards_guard.require_sound(self.accelerator.device)
        if self._pass is not None:
            self._pass.rewards = rewards
        return rewards

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
        if not self.share_rollout:
            return super()._tokenize_prompts(prompts)
        encoded = self._current.prompts
        tokens = [row[mask.bool()].tolist() for row, mask in zip(encoded.ids, encoded.mask, strict=True)]
        return [row for row in tokens for _ in range(self._group_size)], None, {}

    def _generate_single_turn(
        self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False
    ) -> tuple[list[list[int]], list | None]:
        if not self.share_rollout:
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
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
                cast(PreTrainedModel, unwrapped),
                self._current.prompts,
                self._group_size,
                self.generation_config,
                in_step=fsdp_is_asked() and self.accelerator.num_processes > 1,
            )
        forbidden = torch.tensor(self.generation_config.suppress_tokens or [], device=tokens.device)
        assert not torch.isin(tokens, forbidden).any(), "an image token was sampled"
        lengths = completion_lengths(tokens, self.eos_token_ids)
        return [row[:length].tolist() for row, length in zip(tokens.cpu(), lengths.tolist(), strict=True)], None

    # --- training: one packed forward per micro-batch ------------------------------------------------------------

    def _compute_loss(self, model, inputs: dict[str, Any]) -> torch.Tensor:
        """TRL's loss of one micro-batch. Divided by tokens, all parts but the last are already back-propagated."""
        if not self.shared_prefix:
            return super()._compute_loss(model, inputs)
        training = self.model.training
        held = self._buffered_prompts["train" if training else "eval"].select(inputs["prompt_number"].tolist())
        batch = len(held.ids)
        values = {
            name: value
            for name, value in inputs.items()
            if isinstance(value, torch.Tensor) and value.ndim >= 2 and len(value) == batch
        }
        parts = (
            divided(held.mask, values["completion_mask"], self.tokens_per_micro_batch, self.accelerator.gather)
            if training
            else [list(range(batch))]
        )
        if len(parts) == 1:
            return self._loss_of(model, held, values, inputs["num_items_in_batch"])
        shares = token_shares(values["completion_mask"], parts)
        loss_shares = loss_weights(self.loss_type, parts, shares)
        before = {name: len(entries) for name, entries in self._metrics["train"].items()}
        loss = torch.zeros((), device=self.accelerator.device)
        for number, (part, share) in enumerate(zip(parts, loss_shares, strict=True)):
            last = number == len(parts) - 1
            own = {name: value[part] for name, value in values.items()}
            with nullcontext() if last else self.accelerator.no_sync(model):
                one = share * self._loss_of(model, held.select(part), own, inputs["num_items_in_batch"])
                if not last:
                    backward(self.accelerator, one)
            loss = loss.detach() + one
        merge_metrics(self._metrics["train"], before, shares)
        return loss

    def _loss_of(self, model: Any, prompts: PromptBatch, values: Values, total: torch.Tensor) -> torch.Tensor:
        """TRL's loss of some whole groups."""
        prompts, values = prompts.trimmed(), trimmed(values)
        group = values["completion_ids"].size(1)
        rows = {name: value.flatten(0, 1) for name, value in values.items()}
        rows["prompt_ids"] = prompts.ids.repeat_interleave(group, dim=0)
        rows["prompt_mask"] = prompts.mask.repeat_interleave(group, dim=0)
        live = self._groups_with_a_gradient(values["advantages"])
        with self._working_on(GroupPass(prompts, live, values.get("old_per_token_logps"))):
            return super()._compute_loss(model, rows | {"num_items_in_batch": total})

    def _groups_with_a_gradient(self, advantages: torch.Tensor) -> list[int] | None:
        """Groups of (B, G) advantages to compute in this pass; None for all."""
        if not self.model.training or self.beta or self._entropy_bonus_enabled:
            return None
        live = live_groups(advantages)
        self._metrics["train"]["groups_left_out"].append(1 - len(live) / len(advantages))
        return live if len(live) < len(advantages) else None

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
        current, prompts = self._current, self._current.live_prompts()
        group = input_ids.size(0) // len(current.prompts.ids)
        shape = (-1, group, logits_to_keep)
        completions = current.live(input_ids[:, -logits_to_keep:].reshape(shape))
        mask = current.live(attention_mask[:, -logits_to_keep:].reshape(shape))
        groups_per_forward = max(1, (batch_size or len(mask) * group) // group)
        log_probs, entropies = score_groups(
            self.accelerator,
            model,
            prompts,
            completions,
            mask,
            groups_per_forward,
            compute_entropy,
            touch_vision=self._vision_is_shared,
        )
        self.meter.count_pass(self.accelerator.unwrap_model(self.model), prompts, mask)
        if self._verify_next and torch.is_grad_enabled() and self._verifiable(prompts):
            self._verify_next = False
            self._verify(model, prompts.slice(0, 1), completions[0], mask[0], log_probs[:group])
        return *current.spread_scores(log_probs, entropies, mask), None

    def _verifiable(self, prompts: PromptBatch) -> bool:
        """Of sharded weights only where the first prompts of all processes have images or none has: stock TRL's rows
        make the vision tower's calls for images alone, and a process that makes none would be waited for."""
        if not weights_are_sharded():
            return True
        with_images = float(prompts.images_per_prompt[0] > 0)
        return self._over_processes(with_images, "mean") in (0.0, 1.0)

    def _verify(
        self, model: Any, prompt: PromptBatch, completions: torch.Tensor, mask: torch.Tensor, ours: torch.Tensor
    ) -> None:
        """Compare one group's log-probabilities with those of stock TRL's rows; raises RuntimeError if they differ."""
        rows, rows_mask, images = stock_rows(prompt, completions, mask)
        length, dropout = completions.size(1), active_dropout(model)
        with torch.no_grad(), evaluating(dropout), self.meter.paused():
            if dropout:  # LoRA's: drawn anew in each pass, so the pass that trains cannot be compared
                with self._working_on(GroupPass(prompt)):
                    ours, _, _ = self._get_per_token_logps_and_entropies(model, rows, rows_mask, length)
            stock, _, _ = super()._get_per_token_logps_and_entropies(model, rows, rows_mask, length, **images)
        half_precision = torch.is_autocast_enabled(stock.device.type) or self.model.dtype != torch.float32
        agreement = require_agreement(ours, stock, mask, half_precision)
        if self.accelerator.is_main_process:
            print(agreement)
