"""GRPO on whole groups: TRL's trainer with the prompt, its pictures and its vision features computed once per group.

Everything that is not grouping stays TRL's: losses, advantages, LoRA, DeepSpeed, logging, checkpoints. The overrides
below only change what travels through TRL's own steps: one prompt where it expects one per completion. With
`shared_prefix` off they all step aside and the run is stock TRL, which is what the tests hold this file against.

Written for trl 1.16.0; tests/test_trainer.py pins the signatures of the private methods overridden here.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from accelerate.utils import DistributedType
from transformers import PreTrainedModel
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from open_r1.checkpoints import forbidden_token_ids, windowed_layers
from open_r1.durable import Durable
from open_r1.errors import UserError
from open_r1.ordered_sampler import EpochOrder, OrderedSampler, order_of
from open_r1.pictures import OpenPictures, Picture, PictureFeed, PictureKey, encode_prompts, take_features
from open_r1.rollout import PromptBatch, completion_lengths, inner_model, prompt_positions, sample_groups
from open_r1.scored_groups import ScoredGroups, Values, by_tokens, trimmed, without_spread
from open_r1.sharding import fsdp_is_asked, weights_are_sharded
from open_r1.shared_prefix import ATTENTION, adapt_backbone, pack
from open_r1.step_meter import StepMeter, peak_flops, useful_flops
from open_r1.tracking import completions_repository
from open_r1.trl_options import refuse_beside_shared_prefix, refuse_unserved

# Completion tokens of a group from which it attends segment by segment. On a CPU one 4D mask does well at 160 tokens;
# at 16 x 128 a pass took 875 ms under it and 278 ms by segment (benchmarks/grpo_step.py).
LONG_SEGMENTS = 256
# Mean difference of log-probabilities between the two ways. Observed on tiny models: 3e-7 in float32, 2.4e-3 in
# bfloat16. Large models round more; what is wrong (a picture, a position, a leak) moves them further still.
VERIFY_LIMIT = 1e-4
VERIFY_LIMIT_HALF = 0.1
PICTURE_TENSORS = ("pixel_values", "image_grid_thw", "mm_token_type_ids")
# The rewards that tell right from wrong, each with spread where only some completions are right.
CORRECT = ("accuracy_reward", "medical_accuracy_reward")
# How the losses of micro-batches add up to that of their union: by sequences, by tokens, or as they are.
BY_SEQUENCES, BY_TOKENS = {"grpo", "sapo", "luspo", "dr_grpo"}, {"bnpo"}


class SharedPrefixGRPOTrainer(Durable, GRPOTrainer):
    """`trl.GRPOTrainer` for rows with undecoded pictures.

    Args:
        open_pictures: turns a row into its RGB pictures, none for a text-only row. Called once per prompt.
        picture_key: what tells the pictures of rows apart; equal ones are processed once per batch.
        shared_prefix: false runs stock TRL, a row per completion.
        share_rollout: false samples as stock TRL does and shares the prefix in training alone (always so with vLLM).
        verify: hold the first group of the first training pass against stock TRL's rows and stop if they differ.
        tokens_per_micro_batch: divide the prompts of a micro-batch further, so that one forward pass holds at most
            so many tokens; None computes them at once. The step stays the same.
        resample_dead_groups: rounds of further prompts to draw for groups whose completions all earned the same.
        vision_cache_gib: memory for the features of a vision tower that is frozen.
        order: places of the questions of an epoch, as `ordered_sampler` wants them; None lets TRL shuffle.
        publish_completions: let all the world read what `args.log_completions_hub_repo` is sent.
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
        open_pictures: OpenPictures,
        picture_key: PictureKey | None = None,
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
        self._prompts: PromptBatch | None = None
        self._held: dict[str, PromptBatch] = {}
        self._verify_next = verify
        self._live: list[int] | None = None
        self._filler: torch.Tensor | None = None
        self._rewards = torch.empty(0)
        self.meter = StepMeter()
        _refuse_unserved(kwargs, shared_prefix)
        with completions_repository(kwargs["args"], publish_completions):
            super().__init__(**kwargs)
        self.reward_funcs = [self.rewards_guard.guarded(each) for each in self.reward_funcs]
        self.windowed = windowed_layers(self.model.config) if shared_prefix else 0
        self.shared_prefix = shared_prefix and not self.windowed
        self._may_share_rollout = share_rollout and not self.use_vllm
        self.tokens_per_micro_batch, self.resample_dead_groups = tokens_per_micro_batch, resample_dead_groups
        self.pictures = PictureFeed(
            open_pictures,
            picture_key,
            getattr(self.processing_class, "image_processor", None),
            self.accelerator.device,
        )
        self._refuse_what_does_not_fit()
        if not self.use_vllm:
            asked = (self.args.generation_kwargs or {}).get("suppress_tokens") or []
            self.generation_config.suppress_tokens = [*forbidden_token_ids(self.model.config), *asked]
        if self.shared_prefix:
            for each in (self.model, self.ref_model):
                prepare_model(each)
            # Of sharded weights a process cannot use its tower alone, so each picture is encoded anew, by all together.
            if picture_key is not None and self.vision_tower_is_frozen and not weights_are_sharded():
                for each in (self.model, self.ref_model):
                    if each is not None:
                        take_features(inner_model(each).visual)
                self.pictures.keep_features(self._features, vision_cache_gib)

    def _refuse_what_does_not_fit(self) -> None:
        if not self.shared_prefix:
            if self.tokens_per_micro_batch or self.resample_dead_groups:
                raise UserError(
                    "tokens_per_micro_batch and resample_dead_groups work on whole groups, which stock TRL's rows are "
                    "not: leave them out or leave shared_prefix on"
                )
            return
        if self.args.per_device_train_batch_size % self.num_generations:
            raise UserError(
                f"per_device_train_batch_size ({self.args.per_device_train_batch_size} completions) is no multiple "
                f"of num_generations ({self.num_generations}): a group must lie in one micro-batch to share its prefix"
            )
        if self.tokens_per_micro_batch and (self._entropy_bonus_enabled or self.top_entropy_quantile < 1):
            raise UserError(
                "tokens_per_micro_batch divides a batch whose entropy terms are means over all its tokens: "
                "leave out the entropy bonus and top_entropy_quantile, or tokens_per_micro_batch"
            )
        if self.resample_dead_groups and not set(CORRECT) & set(self.reward_func_names):
            raise UserError(
                "resample_dead_groups takes groups that are right in part, which the other rewards cannot tell: "
                "add the accuracy reward or leave resample_dead_groups out"
            )
        if self.resample_dead_groups and self.scale_rewards == "batch":
            raise UserError("resample_dead_groups mixes batches, so it does not go with scale_rewards batch; use group")

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

    @torch.no_grad()
    def _features(self, picture: Picture) -> torch.Tensor:
        """What the frozen tower makes of one picture, (tokens, hidden)."""
        inner = inner_model(self.accelerator.unwrap_model(self.model))
        device = self.accelerator.device
        with self.accelerator.autocast():
            outputs = inner.get_image_features(picture.values.to(device), picture.grid[None].to(device))
        return outputs.pooler_output[0]

    def path_line(self) -> str:
        """One line: which way sampling and training go, and why where it is not the shared prefix."""
        if self.windowed:
            return (
                f"shared prefix: off, because {self.windowed} of the {self.model.config.model_type}'s layers look back "
                "over a window only, which the packed rows do not keep; stock TRL computes every prompt once per "
                "completion"
            )
        if not self.shared_prefix:
            return "shared prefix: off (--shared_prefix false); stock TRL computes every prompt once per completion"
        if not self.share_rollout:
            sampler = "vLLM" if self.use_vllm else "stock TRL"
            return f"shared prefix: on in training; {sampler} samples, with its own handling of the prompts of a group"
        frozen = "; vision features once per picture and run" if self.pictures.keeps_features else ""
        if self.vision_tower_is_frozen and weights_are_sharded():
            frozen = "; with sharded weights the frozen tower's features are not kept"
        return f"shared prefix: on (picture, vision tower and prompt once per group, in sampling and training{frozen})"

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """As the Trainer's; it is no part of a step, so what it costs is not counted as such."""
        with self.meter.paused():
            return super().evaluate(*arguments, **options)

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
        mode = "train" if self.model.training else "eval"
        groups, total = self._sample_and_score(inputs)
        if mode == "train" and self.resample_dead_groups:
            groups = self._resampled(groups)
            total = self.accelerator.gather(groups.values["completion_mask"].sum()).sum()
        # The prompts stay here and TRL's buffer carries their numbers: pictures need no shuffling and splitting.
        self._held[mode] = groups.prompts
        numbers = torch.arange(len(groups.prompts.ids), device=groups.prompts.ids.device)
        return groups.values | {"prompt_number": numbers, "num_items_in_batch": total}

    def _sample_and_score(self, inputs: list[dict[str, Any]]) -> tuple[ScoredGroups, torch.Tensor]:
        """TRL's rollout of B prompts, given as B * G rows; and the completion tokens of all processes."""
        group = self._group_size
        firsts = inputs[::group]
        assert all(row["prompt"] == firsts[i // group]["prompt"] for i, row in enumerate(inputs)), "a group was split"
        self._prompts = prompts = self._encode_rows(firsts)
        rows = _without_pictures(inputs) if self.share_rollout else self._with_pictures(inputs)
        scored = super()._generate_and_score_completions(rows)
        taken = ("prompt_ids", "prompt_mask", "num_items_in_batch", *PICTURE_TENSORS)
        values = {
            name: value.reshape(len(firsts), group, *value.shape[1:])
            for name, value in scored.items()
            if isinstance(value, torch.Tensor) and name not in taken
        }
        mine = self.accelerator.process_index * len(inputs)
        rewards = self._rewards[mine : mine + len(inputs)].view(len(firsts), group, -1)
        return ScoredGroups(prompts, values, rewards), scored["num_items_in_batch"]

    def _resampled(self, groups: ScoredGroups) -> ScoredGroups:
        """Dead groups replaced, as far as further prompts have completions of which some are right and some wrong.

        Every process draws as many prompts as the one that lacks most, so all make the same calls. What is drawn
        leaves no trace in the logged rewards: those are the batch's own.
        """
        metrics = self._metrics["train"]
        before = {name: len(values) for name, values in metrics.items()}
        weights = self.reward_weights.to(groups.rewards.device)
        correct = next(i for i, name in enumerate(self.reward_func_names) if name in CORRECT)
        at_first = replaced = 0
        for attempt in range(self.resample_dead_groups):
            dead = without_spread((groups.rewards * weights).nansum(dim=2)).nonzero().flatten().tolist()
            at_first = at_first or len(dead)
            wanted = int(self._over_processes(len(dead), "max"))
            if wanted == 0:
                break
            rows = [row for row in self._further_rows(wanted, attempt) for _ in range(self._group_size)]
            further, _ = self._sample_and_score(rows)
            live = (~without_spread(further.rewards[:, :, correct])).nonzero().flatten().tolist()
            chosen = list(range(len(groups.prompts.ids)))
            for place, found in zip(dead, live, strict=False):
                chosen[place] = len(chosen) + found
                replaced += 1
            groups = ScoredGroups.join(groups, further, cast(int, self._tokenizer.pad_token_id)).select(chosen)
        for name, values in metrics.items():
            del values[before.get(name, 0) :]
        count = len(groups.prompts.ids)
        metrics["groups_dead"].append(self._over_processes(at_first, "mean") / count)
        metrics["groups_replaced"].append(self._over_processes(replaced, "mean") / count)
        return groups

    def _over_processes(self, number: float, reduction: str) -> float:
        gathered = self.accelerator.gather(torch.tensor([float(number)], device=self.accelerator.device))
        return (gathered.max() if reduction == "max" else gathered.mean()).item()

    def _further_rows(self, count: int, attempt: int) -> list[dict[str, Any]]:
        """This process's share of `count` prompts for each, drawn by seed and step, so a resumed run draws the same."""
        rollout = self.state.global_step, self._step % self.args.gradient_accumulation_steps, attempt
        random = torch.Generator().manual_seed(hash((self.args.seed, *rollout)) % 2**63)
        order = torch.randperm(len(self.train_dataset), generator=random).tolist()
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        return [self.train_dataset[order[(rank + processes * i) % len(order)]] for i in range(count)]

    def _with_pictures(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows as stock TRL wants them, with decoded pictures."""
        group = self._group_size
        pictures = self.pictures.images(rows[::group])
        plain = _without_pictures(rows)
        if not any(pictures):
            return plain
        return [{**row, "images": pictures[i // group]} for i, row in enumerate(plain)]

    def _encode_rows(self, rows: list[dict[str, Any]]) -> PromptBatch:
        """Tokenize each prompt and process each picture once."""
        options = cast(dict[str, Any], self.chat_template_kwargs)
        texts = [
            self.processing_class.apply_chat_template(
                row["prompt"], tokenize=False, add_generation_prompt=True, **options
            )
            for row in rows
        ]
        return encode_prompts(texts, self.pictures(rows), self.processing_class, self.accelerator.device)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list) -> torch.Tensor:
        with self.meter.phase("reward"):
            self._rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
            self.rewards_guard.require_sound(self.accelerator.device)
        return self._rewards

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
        assert self._prompts is not None
        tokens = [row[mask.bool()].tolist() for row, mask in zip(self._prompts.ids, self._prompts.mask, strict=True)]
        return [row for row in tokens for _ in range(self._group_size)], None, {}

    def _generate_single_turn(
        self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False
    ) -> tuple[list[list[int]], list | None]:
        if not self.share_rollout:
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
                cast(PreTrainedModel, unwrapped),
                self._prompts,
                self._group_size,
                self.generation_config,
                in_step=fsdp_is_asked() and self.accelerator.num_processes > 1,
            )
        forbidden = torch.tensor(self.generation_config.suppress_tokens or [], device=tokens.device)
        assert not torch.isin(tokens, forbidden).any(), "a picture token was sampled"
        lengths = completion_lengths(tokens, self.eos_token_ids)
        return [row[:length].tolist() for row, length in zip(tokens.cpu(), lengths.tolist(), strict=True)], None

    # --- training: one packed forward per micro-batch ------------------------------------------------------------

    def _compute_loss(self, model, inputs: dict[str, Any]) -> torch.Tensor:
        """TRL's loss of one micro-batch. Divided by tokens, all parts but the last are already back-propagated."""
        if not self.shared_prefix:
            return super()._compute_loss(model, inputs)
        training = self.model.training
        held = self._held["train" if training else "eval"].select(inputs["prompt_number"].tolist())
        batch = len(held.ids)
        values = {
            name: value
            for name, value in inputs.items()
            if isinstance(value, torch.Tensor) and value.ndim >= 2 and len(value) == batch
        }
        parts = self._parts(held, values) if training else [list(range(batch))]
        if len(parts) == 1:
            return self._loss_of(model, held, values, inputs["num_items_in_batch"])
        shares = self._shares(values, parts)
        before = {name: len(entries) for name, entries in self._metrics["train"].items()}
        loss = torch.zeros((), device=self.accelerator.device)
        for number, (part, share) in enumerate(zip(parts, shares["loss"], strict=True)):
            last = number == len(parts) - 1
            own = {name: value[part] for name, value in values.items()}
            with nullcontext() if last else self.accelerator.no_sync(model):
                one = share * self._loss_of(model, held.select(part), own, inputs["num_items_in_batch"])
                if not last:
                    self._backward_part(one)
            loss = loss.detach() + one
        self._merge_metrics(before, shares["tokens"])
        return loss

    def try_pass(self, rows: list[dict[str, Any]]) -> int:
        """Forward and backward of one micro-batch whose completions all have the full length; nothing is changed.

        Under DeepSpeed the forward pass alone: its engine takes every backward pass for a part of a step.

        Args:
            rows: the prompts, as many as a micro-batch holds.

        Returns:
            Tokens that went through the model.
        """
        assert self.shared_prefix, "stock TRL's rows are tried by their first step"
        group, length = self.num_generations, int(self.max_completion_length or 1)
        self.current_gradient_accumulation_steps = 1
        prompts = self._held["train"] = self._encode_rows(rows)
        ordinary = int(prompts.ids[0, -1])  # the end of a chat template's opening: text, never a picture
        shape = (len(rows), group, length)
        ids = prompts.ids.new_full(shape, ordinary)
        values = {"completion_ids": ids, "completion_mask": torch.ones_like(ids)}
        values["advantages"] = torch.ones(shape[:2], device=ids.device)
        if self.beta:
            values["ref_per_token_logps"] = torch.zeros(shape, device=ids.device)
        numbers = torch.arange(len(rows), device=ids.device)
        inputs = values | {"prompt_number": numbers, "num_items_in_batch": torch.tensor(ids.numel(), device=ids.device)}
        verify, self._verify_next = self._verify_next, False
        self.model.train()
        with torch.random.fork_rng():
            loss = self._compute_loss(self.model_wrapped, inputs)
            if self.accelerator.distributed_type != DistributedType.DEEPSPEED:
                self.accelerator.backward(loss)
        self.model_wrapped.zero_grad()
        self._verify_next = verify
        self._metrics["train"].clear()
        self.meter.clear()
        return int(prompts.mask.sum()) - len(rows) + ids.numel()

    def _parts(self, prompts: PromptBatch, values: Values) -> list[list[int]]:
        """The groups of a micro-batch by forward pass. All processes divide alike, by the longest at each place."""
        count = len(prompts.ids)
        if not self.tokens_per_micro_batch:
            return [list(range(count))]
        group = values["completion_mask"].size(1)
        sizes = torch.stack([prompts.mask.sum(dim=1), values["completion_mask"].sum(dim=2).amax(dim=1)], dim=1)
        order = sorted(range(count), key=lambda i: (-int(sizes[i, 0] + group * sizes[i, 1]), i))
        longest = self.accelerator.gather(sizes[order].contiguous()).view(-1, count, 2).amax(dim=0)
        prompt_lengths, completion_lengths_ = longest.T.tolist()
        parts = by_tokens(prompt_lengths, completion_lengths_, group, self.tokens_per_micro_batch)
        return [[order[place] for place in part] for part in parts]

    def _shares(self, values: Values, parts: list[list[int]]) -> dict[str, list[float]]:
        """What each part's loss counts for in the whole, and its share of the completion tokens."""
        tokens = [float(values["completion_mask"][part].sum()) for part in parts]
        by_tokens_ = [own / max(1.0, sum(tokens)) for own in tokens]
        if self.loss_type in BY_SEQUENCES:
            count = sum(map(len, parts))
            return {"loss": [len(part) / count for part in parts], "tokens": by_tokens_}
        return {"loss": by_tokens_ if self.loss_type in BY_TOKENS else [1.0] * len(parts), "tokens": by_tokens_}

    def _backward_part(self, loss: torch.Tensor) -> None:
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            # accelerate would make an optimizer step of a backward pass at the end of an accumulation
            self.accelerator.deepspeed_engine_wrapped.backward(loss, sync_gradients=False, scale_wrt_gas=False)
        else:
            self.accelerator.backward(loss)

    def _merge_metrics(self, before: dict[str, int], shares: list[float]) -> None:
        """One entry per micro-batch where the parts have left one each: extremes of extremes, means by tokens."""
        for name, entries in self._metrics["train"].items():
            own = entries[before.get(name, 0) :]
            if len(own) != len(shares):
                continue
            kind = name.rsplit("_", 1)[-1]
            mean = sum(share * value for share, value in zip(shares, own, strict=True))
            entries[before.get(name, 0) :] = [{"min": min, "max": max}[kind](own) if kind in ("min", "max") else mean]

    def _loss_of(self, model: Any, prompts: PromptBatch, values: Values, total: torch.Tensor) -> torch.Tensor:
        """TRL's loss of some whole groups."""
        self._prompts = prompts = prompts.trimmed()
        values = trimmed(values)
        group = values["completion_ids"].size(1)
        rows = {name: value.flatten(0, 1) for name, value in values.items()}
        self._live = self._groups_with_a_gradient(values["advantages"])
        self._filler = values.get("old_per_token_logps")
        rows["prompt_ids"] = prompts.ids.repeat_interleave(group, dim=0)
        rows["prompt_mask"] = prompts.mask.repeat_interleave(group, dim=0)
        try:
            return super()._compute_loss(model, rows | {"num_items_in_batch": total})
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
                touch = {"touch_vision": True} if self._vision_is_shared and not chunk.vision else {}
                outputs = model(**packed.model_inputs(), **chunk.model_inputs(), **touch)
            logps.append(outputs.log_probs.view(-1, length))
            entropies.append(outputs.entropy.view(-1, length) if compute_entropy else None)
        self._count_tokens(prompts, mask)
        if self._verify_next and torch.is_grad_enabled() and self._verifiable(prompts):
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

    def _verifiable(self, prompts: PromptBatch) -> bool:
        """Of sharded weights only where the first prompts of all processes have pictures or none has: stock TRL's rows
        make the vision tower's calls for pictures alone, and a process that makes none would be waited for."""
        if not weights_are_sharded():
            return True
        pictured = float(prompts.pictures_per_prompt[0] > 0)
        return self._over_processes(pictured, "mean") in (0.0, 1.0)

    def _verify(
        self, model: Any, prompt: PromptBatch, ids: torch.Tensor, mask: torch.Tensor, ours: torch.Tensor
    ) -> None:
        """Compare one group's log-probabilities with those of stock TRL's rows.

        Raises:
            RuntimeError: they differ by more than rounding, with the difference.
        """
        group, length = ids.shape
        rows = torch.cat([prompt.ids.expand(group, -1), ids], dim=1)
        rows_mask = torch.cat([prompt.mask.expand(group, -1), mask], dim=1)
        repeated: dict[str, Any] = {name: torch.cat([value] * group) for name, value in prompt.vision.items()}
        if repeated:
            kinds = repeated["mm_token_type_ids"]
            repeated["mm_token_type_ids"] = torch.cat([kinds, kinds.new_zeros(group, length)], dim=1)
            repeated["num_images"] = prompt.pictures_per_prompt * group
        dropped = [each for each in model.modules() if isinstance(each, torch.nn.Dropout) and each.p and each.training]
        with torch.no_grad(), _evaluating(dropped), self.meter.paused():
            if dropped:  # LoRA's: drawn anew in each pass, so the pass that trains cannot be compared
                everything, self._prompts, self._live = (self._prompts, self._live), prompt, None
                ours, _, _ = self._get_per_token_logps_and_entropies(model, rows, rows_mask, length)
                self._prompts, self._live = everything
            stock, _, _ = super()._get_per_token_logps_and_entropies(model, rows, rows_mask, length, **repeated)
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


def _refuse_unserved(given: dict[str, Any], shared_prefix: bool) -> None:
    """Refuse options of TRL that a trainer of these arguments would not serve."""
    arguments, model = given["args"], given["model"]
    refuse_unserved(vars(arguments) | ({"model_init_kwargs": None} if isinstance(model, str) else {}))
    if shared_prefix and (isinstance(model, str) or not windowed_layers(model.config)):
        refuse_beside_shared_prefix(arguments, given)


@contextmanager
def _evaluating(modules: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Modules in evaluation mode for a while; the others stay as they are."""
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module in modules:
            module.train()


def _spread(values: torch.Tensor, groups: list[int], filler: torch.Tensor) -> torch.Tensor:
    """(len(groups) * G, C) values at their places among all groups (B, G, C), `filler` elsewhere; (B * G, C)."""
    index = torch.tensor(groups, device=values.device)
    return filler.clone().index_copy(0, index, values.view(len(groups), *filler.shape[1:])).flatten(0, 1)


def _without_pictures(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in ("image", "images")} for row in rows]


def prepare_model(model: Any) -> None:
    """Let a model take packed rows: its language model's attention and its head's share of the work."""
    if model is None:
        return
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    inner = getattr(inner, "module", inner)
    use_attention(inner, ATTENTION)
    adapt_backbone(inner_model(inner))


def use_attention(model: Any, name: str) -> None:
    """Give the language model another attention implementation; the vision tower keeps its own."""
    model.set_attn_implementation({"text_config": name} if hasattr(model.config, "vision_config") else name)
