"""GRPO on whole groups: TRL's trainer with prompt, images and vision features computed once per group.

Everything else is TRL's: losses, advantages, LoRA, DeepSpeed, logging, checkpoints. The overrides below give TRL's
steps one prompt per group instead of one per completion. Without `shared_prefix` the run is stock TRL's.
Written for trl 1.16.0; tests/support/seams.py has the signatures of the private methods overridden here.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, cast

import torch
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from open_r1.checkpoints.families import forbidden_token_ids
from open_r1.modeling.image_tokens import accept_features, encode_prompts
from open_r1.modeling.packed_rows import use_small_tiles_without_gpu
from open_r1.modeling.prompt_batch import PromptBatch, completion_lengths, inner_model
from open_r1.modeling.segment_attention import prepare_model
from open_r1.modeling.sharding import weights_are_sharded
from open_r1.training.grpo.blind_answers import BlindAnswers
from open_r1.training.grpo.groups import ScoredGroups, Values
from open_r1.training.grpo.image_feed import ImageFeed, ImageKeys, OpenImages, encode_image, without_images
from open_r1.training.grpo.micro_batches import backward_only, divide, loss_weights, merge_metrics, token_shares, trim
from open_r1.training.grpo.options import require_compatible, require_supported, uncached_reason
from open_r1.training.grpo.packed_scoring import GroupPass, live_groups, score_groups
from open_r1.training.grpo.resampling import CORRECTNESS_REWARDS, further_rows, replace_dead_groups
from open_r1.training.grpo.rollout import GroupSampler
from open_r1.training.grpo.step_meter import StepMeter, peak_flops
from open_r1.training.grpo.verification import (
    active_dropout,
    can_verify,
    evaluating,
    require_agreement,
    stock_rows,
    unshared_reason,
)
from open_r1.training.grpo.vllm_sampling import changes_odds, prepare_vllm, repeated_images, report_sampler
from open_r1.training.recovery.epoch_sampler import EpochOrder, OrderedSampler, order_of
from open_r1.training.recovery.resumable_trainer import ResumableTrainer
from open_r1.training.setup.readable_rows import ReadableRows
from open_r1.training.setup.tracking import completions_repository
from open_r1.training.watching.group_recorder import RecordsGroups

IMAGE_TENSORS = ("pixel_values", "image_grid_thw", "mm_token_type_ids")


class SharedPrefixGRPOTrainer(ResumableTrainer, RecordsGroups, GRPOTrainer):
    """`trl.GRPOTrainer` for rows with undecoded images.

    Args:
        open_images: returns the RGB images of a row, none for a text-only row. Called once per prompt.
        image_keys: a key for each image of a row; equal images have equal ones and are processed once per batch.
        shared_prefix: false runs stock TRL with a row per completion.
        share_rollout: false samples with stock TRL and shares the prefix in training only (always so with vLLM).
        verify: compare the first group of the first training pass with stock TRL's rows, and stop if they differ.
        tokens_per_micro_batch: most tokens of one forward pass; larger micro-batches are divided. None computes them
            at once. The step stays the same.
        resample_dead_groups: most draws of further prompts to replace groups whose completions all have one reward.
        vision_cache_gib: host memory for the features of a frozen vision tower.
        order: returns the row indices of an epoch (see `epoch_sampler`); None lets TRL shuffle.
        publish_completions: make `args.log_completions_hub_repo` a public repository.
        **kwargs: arguments of `trl.GRPOTrainer`. As in TRL, `args.per_device_train_batch_size` counts completions.

    Raises:
        UserError: if a micro-batch would not hold whole groups, or options are not supported or exclude each other.
    """

    # Types that are wider in the base classes.
    model: Any
    model_wrapped: Any
    args: Any
    processing_class: Any
    num_generations: int
    num_generations_eval: int
    accelerator: Any
    train_dataset: Any
    blind_answers: BlindAnswers | None = None  # for rewards that need to know them

    def __init__(
        self,
        *,
        open_images: OpenImages,
        image_keys: ImageKeys | None = None,
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
        require_supported(kwargs, shared_prefix)
        use_small_tiles_without_gpu()
        find_unused = kwargs["args"].ddp_find_unused_parameters  # TRL makes None true for vision models
        with completions_repository(kwargs["args"], publish_completions):
            super().__init__(**kwargs)
        self.reward_funcs = [self.rewards_guard.guarded(function) for function in self.reward_funcs]
        self.unshared_reason = unshared_reason(self.model) if shared_prefix else None
        self.shared_prefix = shared_prefix and self.unshared_reason is None
        self._may_share_rollout = share_rollout and not self.use_vllm
        self._may_share_prompts = self._may_share_rollout or (self.use_vllm and self.vllm_mode == "colocate")
        self._verify_sampler = verify and self.use_vllm and not changes_odds(self.args)
        self.tokens_per_micro_batch, self.resample_dead_groups = tokens_per_micro_batch, resample_dead_groups
        self._group_sampler = GroupSampler(in_step=weights_are_sharded() and self.accelerator.num_processes > 1)
        image_processor = getattr(self.processing_class, "image_processor", None)
        self.images = ImageFeed(open_images, image_keys, image_processor, self.accelerator.device)
        self.readable = ReadableRows(self.images)
        require_compatible(self)
        if self.use_vllm:
            prepare_vllm(self)
        else:
            suppressed = (self.args.generation_kwargs or {}).get("suppress_tokens") or []
            self.generation_config.suppress_tokens = [*forbidden_token_ids(self.model.config), *suppressed]
        if self.shared_prefix:
            # Every pass reaches every weight that trains (`touch_vision`), so DDP need not look for unused ones.
            if find_unused is None and self.accelerator.ddp_handler is not None:
                self.accelerator.ddp_handler.find_unused_parameters = False
            for model in (self.model, self.ref_model):
                prepare_model(model)
            if image_keys is not None and self.vision_tower_is_frozen and uncached_reason(self.model) is None:
                for model in (self.model, self.ref_model):
                    if model is not None:
                        accept_features(inner_model(model).visual)
                self.images.cache_features(partial(encode_image, self.accelerator, self.model), vision_cache_gib)

    def _get_train_sampler(self, dataset=None) -> Any:
        sampler: Any = super()._get_train_sampler(dataset)
        self._sampler = OrderedSampler(sampler, self._order or order_of(sampler))
        return self._sampler

    def _start_epoch(self, epoch: int) -> None:
        # the data loader cannot do this: in a resumed run it wraps the sampler, and its set_epoch does not reach it
        self._sampler.set_epoch(epoch)

    def _can_resume_here(self) -> bool:
        """Only a step that ends the use of its completions can be resumed from: completions are not saved."""
        return self._step % (self.args.steps_per_generation * self.num_iterations) == 0

    @property
    def share_rollout(self) -> bool:
        """Whether the completions of a group are sampled from one prefill."""
        return self.shared_prefix and self._may_share_rollout

    @property
    def _vision_is_shared(self) -> bool:
        """Whether other processes wait for this process to call the vision tower."""
        if self.accelerator.num_processes == 1 or not hasattr(inner_model(self.model), "visual"):
            return False
        return weights_are_sharded() or not self.vision_tower_is_frozen

    @property
    def vision_tower_is_frozen(self) -> bool:
        """Whether there is a vision tower and none of its weights are trained."""
        tower = getattr(inner_model(self.model), "visual", None)
        return tower is not None and not any(weight.requires_grad for weight in tower.parameters())

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """As in transformers' Trainer, without counting its cost as part of a step."""
        with self.meter.paused():
            return super().evaluate(*arguments, **options)

    @property
    def _group_size(self) -> int:
        return self.num_generations if self.model.training else self.num_generations_eval

    # --- images and prompts: once per prompt -------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's step for B * G rows; returns group-major tensors, (B, G, ...), so that groups are never split."""
        with self.meter.phase("rollout"):
            if not self.shared_prefix:
                inputs = self.images.add_to(self._replace_unreadable(inputs), self._group_size)
                return super()._generate_and_score_completions(inputs)
            return self._generate_and_score_groups(inputs)

    def _replace_unreadable(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows, with others in place of those whose images can no longer be opened."""
        dataset = self.train_dataset if self.model.training else self.eval_dataset
        return self.readable(inputs, self._group_size, dataset)

    def _generate_and_score_groups(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        mode = "train" if self.model.training else "eval"
        groups, total = self._sample_and_score(inputs)
        if mode == "train" and self.resample_dead_groups:
            groups = self._resample(groups)
            total = self.accelerator.gather(groups.values["completion_mask"].sum()).sum()
        # The prompts stay here, and TRL's buffer holds their numbers, so that images need no shuffling and splitting.
        self._buffered_prompts[mode] = groups.prompts
        numbers = torch.arange(len(groups.prompts.ids))
        return groups.values | groups.host_copies() | {"prompt_number": numbers, "num_items_in_batch": total}

    def _sample_and_score(self, inputs: list[dict[str, Any]]) -> tuple[ScoredGroups, torch.Tensor]:
        """TRL's rollout of B prompts, from B * G rows, and the number of completion tokens of all processes."""
        group = self._group_size
        inputs = self._replace_unreadable(inputs)
        questions = inputs[::group]
        assert all(row["prompt"] == questions[i // group]["prompt"] for i, row in enumerate(inputs)), "group was split"
        rows = without_images(inputs) if self._may_share_prompts else self.images.add_to(inputs, group)
        with self._set_pass(GroupPass(self._encode_rows(questions), questions=questions)) as current:
            scored = super()._generate_and_score_completions(rows)
        if self._verify_sampler:
            self._verify_sampler = not report_sampler(self.accelerator, scored, self.model.dtype)
        other_keys = ("prompt_ids", "prompt_mask", "num_items_in_batch", *IMAGE_TENSORS)
        values = {
            name: value.reshape(len(questions), group, *value.shape[1:])
            for name, value in scored.items()
            if isinstance(value, torch.Tensor) and name not in other_keys
        }
        start = self.accelerator.process_index * len(inputs)
        rewards = current.rewards[start : start + len(inputs)].view(len(questions), group, -1)
        return ScoredGroups(current.prompts, values, rewards), scored["num_items_in_batch"]

    @contextmanager
    def _set_pass(self, groups: GroupPass) -> Iterator[GroupPass]:
        """Within the block, TRL's methods are called for these groups."""
        outer, self._pass = self._pass, groups
        try:
            yield groups
        finally:
            self._pass = outer

    @property
    def _current(self) -> GroupPass:
        assert self._pass is not None, "TRL called a method outside of a pass"
        return self._pass

    def _resample(self, groups: ScoredGroups) -> ScoredGroups:
        """Replace dead groups. The logged rewards are those of the original groups."""
        metrics = self._metrics["train"]
        before = {name: len(values) for name, values in metrics.items()}
        groups, dead, replaced = replace_dead_groups(
            groups,
            self.resample_dead_groups,
            self._further_groups,
            lambda number: self._reduce(number, "max"),
            self.reward_weights.to(groups.rewards.device),
            next(i for i, name in enumerate(self.reward_func_names) if name in CORRECTNESS_REWARDS),
            cast(int, self._tokenizer.pad_token_id),
        )
        for name, values in metrics.items():
            del values[before.get(name, 0) :]
        count = len(groups.prompts.ids)
        metrics["groups_dead"].append(self._reduce(dead, "mean") / count)
        metrics["groups_replaced"].append(self._reduce(replaced, "mean") / count)
        return groups

    def _further_groups(self, count: int, attempt: int) -> ScoredGroups:
        seed = self.args.seed, self.state.global_step, self._step % self.args.gradient_accumulation_steps, attempt
        processes = self.accelerator.process_index, self.accelerator.num_processes
        indices = further_rows(len(self.train_dataset), count, seed, *processes)
        groups, _ = self._sample_and_score([self.train_dataset[i] for i in indices for _ in range(self._group_size)])
        return groups

    def _reduce(self, number: float, reduction: str) -> float:
        gathered = self.accelerator.gather(torch.tensor([float(number)], device=self.accelerator.device))
        return (gathered.max() if reduction == "max" else gathered.mean()).item()

    def _encode_rows(self, rows: list[dict[str, Any]]) -> PromptBatch:
        """Tokenize every prompt and process every image once."""
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
            if self.blind_answers is not None:
                group, model = self._group_size, self.model
                inputs = self.blind_answers.add_to(inputs, completions, group, model, self.accelerator)
            rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
            self.rewards_guard.require_sound(self.accelerator.device)
        if self._pass is not None:
            self._pass.rewards = rewards
        return rewards

    def training_step(self, model, inputs, num_items_in_batch) -> torch.Tensor:
        """TRL's micro-step; at the end of an optimizer step its cost is added to the logged metrics."""
        with self.meter.phase("step"):
            loss = super().training_step(model, inputs, num_items_in_batch)
        if self._step % self.current_gradient_accumulation_steps == 0:
            for name, value in self.meter.flush(peak_flops()).items():
                self._metrics["train"][name].append(value)
        return loss

    # --- sampling: one prefill per prompt ------------------------------------------------------------------------

    def _tokenize_prompts(self, prompts: list) -> tuple[list[list[int]], list | None, dict[str, Any]]:
        if not (self.shared_prefix and self._may_share_prompts):
            return super()._tokenize_prompts(prompts)
        encoded = self._current.prompts
        tokens = [row[mask.bool()].tolist() for row, mask in zip(encoded.ids, encoded.mask, strict=True)]
        return [row for row in tokens for _ in range(self._group_size)], None, {}

    def _generate_single_turn(
        self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False
    ) -> tuple[list[list[int]], list | None]:
        if not self.share_rollout:
            if self.shared_prefix and self._may_share_prompts:
                images = repeated_images(self.images.images(self._current.questions), self._group_size)
            arguments = prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            return super()._generate_single_turn(*arguments)
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
            prompts, group = self._current.prompts, self._group_size
            tokens = self._group_sampler.sample_groups(unwrapped, prompts, group, self.generation_config)
        forbidden = torch.tensor(self.generation_config.suppress_tokens or [], device=tokens.device)
        assert not torch.isin(tokens, forbidden).any(), "an image token was sampled"
        lengths = completion_lengths(tokens, self.eos_token_ids)
        return [row[:length].tolist() for row, length in zip(tokens.cpu(), lengths.tolist(), strict=True)], None

    # --- training: one packed forward per micro-batch ------------------------------------------------------------

    def _compute_loss(self, model, inputs: dict[str, Any]) -> torch.Tensor:
        """TRL's loss of one micro-batch. If it is divided, all chunks but the last are already back-propagated."""
        if not self.shared_prefix:
            return super()._compute_loss(model, inputs)
        training = self.model.training
        prompts = self._buffered_prompts["train" if training else "eval"].select(inputs["prompt_number"].tolist())
        batch = len(prompts.ids)
        values = {
            name: value
            for name, value in inputs.items()
            if isinstance(value, torch.Tensor) and value.ndim >= 2 and len(value) == batch
        }
        chunks = (
            divide(prompts.mask, values["completion_mask"], self.tokens_per_micro_batch, self.accelerator.gather)
            if training
            else [list(range(batch))]
        )
        if len(chunks) == 1:
            return self._group_loss(model, prompts, values, inputs["num_items_in_batch"])
        shares = token_shares(values["completion_mask"], chunks)
        weights = loss_weights(self.loss_type, chunks, shares)
        before = {name: len(entries) for name, entries in self._metrics["train"].items()}
        loss = torch.zeros((), device=self.accelerator.device)
        for number, (chunk, weight) in enumerate(zip(chunks, weights, strict=True)):
            is_last = number == len(chunks) - 1
            chunk_values = {name: value[chunk] for name, value in values.items()}
            with nullcontext() if is_last else self.accelerator.no_sync(model):
                chunk_loss = self._group_loss(model, prompts.select(chunk), chunk_values, inputs["num_items_in_batch"])
                chunk_loss = weight * chunk_loss
                if not is_last:
                    backward_only(self.accelerator, chunk_loss)
            loss = loss.detach() + chunk_loss
        merge_metrics(self._metrics["train"], before, shares)
        return loss

    def _group_loss(self, model: Any, prompts: PromptBatch, values: Values, total: torch.Tensor) -> torch.Tensor:
        """TRL's loss of whole groups."""
        prompts, values = prompts.trimmed(), trim(values)
        group = values["completion_ids"].size(1)
        rows = {name: value.flatten(0, 1) for name, value in values.items()}
        rows["prompt_ids"] = prompts.ids.repeat_interleave(group, dim=0)
        rows["prompt_mask"] = prompts.mask.repeat_interleave(group, dim=0)
        live = self._live_groups(values.get("advantages_on_host", values["advantages"]))
        with self._set_pass(GroupPass(prompts, live, values.get("old_per_token_logps"))):
            return super()._compute_loss(model, rows | {"num_items_in_batch": total})

    def _live_groups(self, advantages: torch.Tensor) -> list[int] | None:
        """Indices of the groups to compute in this pass, from (B, G) advantages; None for all."""
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
        if self._verify_next and torch.is_grad_enabled() and can_verify(prompts, self._reduce):
            self._verify_next = False
            self._verify(model, prompts.slice(0, 1), completions[0], mask[0], log_probs[:group])
        return *current.spread_scores(log_probs, entropies, mask), None

    def _verify(
        self, model: Any, prompt: PromptBatch, completions: torch.Tensor, mask: torch.Tensor, ours: torch.Tensor
    ) -> None:
        """Compare the log-probabilities of one group with stock TRL's; raises RuntimeError if they differ."""
        rows, rows_mask, images = stock_rows(prompt, completions, mask)
        length, dropout = completions.size(1), active_dropout(model)
        with torch.no_grad(), evaluating(dropout), self.meter.paused():
            if dropout:  # of LoRA: drawn anew in each pass, so that the training pass cannot be compared
                with self._set_pass(GroupPass(prompt)):
                    ours, _, _ = self._get_per_token_logps_and_entropies(model, rows, rows_mask, length)
            stock, _, _ = super()._get_per_token_logps_and_entropies(model, rows, rows_mask, length, **images)
        half_precision = torch.is_autocast_enabled(stock.device.type) or self.model.dtype != torch.float32
        agreement = require_agreement(ours, stock, mask, half_precision)
        if self.accelerator.is_main_process:
            print(agreement)
