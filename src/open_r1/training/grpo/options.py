"""Combinations of options that the GRPO trainer refuses, and a log line on whether the prefix is shared."""

from typing import Any

from open_r1.common.errors import UserError
from open_r1.modeling.prompt_batch import inner_model
from open_r1.modeling.sharding import weights_are_sharded
from open_r1.modeling.vision_attention import feeds_later_layers
from open_r1.training.command_line.trl_options import refuse_unsupported, refuse_with_shared_prefix
from open_r1.training.grpo.resampling import CORRECTNESS_REWARDS
from open_r1.training.grpo.verification import unshared_reason


def require_supported(trainer_arguments: dict[str, Any], shared_prefix: bool) -> None:
    """Refuse options of TRL that the trainer does not support.

    Args:
        trainer_arguments: arguments of `trl.GRPOTrainer`.
        shared_prefix: whether the trainer shares the prefix.

    Raises:
        UserError: with the option and the reason.
    """
    config, model = trainer_arguments["args"], trainer_arguments["model"]
    refuse_unsupported(vars(config) | ({"model_init_kwargs": None} if isinstance(model, str) else {}))
    if shared_prefix and (isinstance(model, str) or unshared_reason(model) is None):
        refuse_with_shared_prefix(config, trainer_arguments)


def require_compatible(trainer: Any) -> None:
    """Refuse options of a `SharedPrefixGRPOTrainer` that exclude each other.

    Raises:
        UserError: with the options, and which to leave out.
    """
    if not trainer.shared_prefix:
        if trainer.tokens_per_micro_batch or trainer.resample_dead_groups:
            raise UserError(
                "tokens_per_micro_batch and resample_dead_groups need the shared prefix: stock TRL's rows are single "
                "completions, not groups. Leave both out, or leave shared_prefix on"
            )
        return
    if trainer.args.per_device_train_batch_size % trainer.num_generations:
        raise UserError(
            f"per_device_train_batch_size ({trainer.args.per_device_train_batch_size} completions) is not a "
            f"multiple of num_generations ({trainer.num_generations}): only a group within one micro-batch shares its "
            "prefix"
        )
    if trainer.tokens_per_micro_batch and (trainer._entropy_bonus_enabled or trainer.top_entropy_quantile < 1):
        raise UserError(
            "tokens_per_micro_batch cannot be combined with the entropy bonus or top_entropy_quantile, which are "
            "computed over all tokens of a batch at once: leave out one of them"
        )
    if trainer.resample_dead_groups and not set(CORRECTNESS_REWARDS) & set(trainer.reward_func_names):
        raise UserError(
            "resample_dead_groups needs the accuracy reward, which tells correct from wrong completions: "
            "add it, or leave resample_dead_groups out"
        )
    if trainer.resample_dead_groups and trainer.scale_rewards == "batch":
        raise UserError("resample_dead_groups mixes batches and cannot be combined with scale_rewards batch: use group")


def shared_prefix_line(trainer: Any) -> str:
    """A log line: whether sampling and training share the prefix, and if not, why."""
    if trainer.unshared_reason is not None:
        return f"shared prefix: off ({trainer.unshared_reason}); stock TRL computes every prompt once per completion"
    if not trainer.shared_prefix:
        return "shared prefix: off (--shared_prefix false); stock TRL computes every prompt once per completion"
    if not trainer.share_rollout:
        sampler = "vLLM" if trainer.use_vllm else "stock TRL"
        return f"shared prefix: on in training; {sampler} samples and handles prompts in its own way"
    frozen = "; vision features once per image and run" if trainer.images.caches_features else ""
    if trainer.vision_tower_is_frozen and (reason := uncached_reason(trainer.model)):
        frozen = f"; the features of the frozen vision tower are not cached, because {reason}"
    return f"shared prefix: on (image, vision tower and prompt once per group, in sampling and training{frozen})"


def uncached_reason(model: Any) -> str | None:
    """Why the features of a frozen vision tower cannot be computed once for the whole run; None if they can."""
    if weights_are_sharded():
        return "with sharded weights a process cannot run the tower alone"
    if feeds_later_layers(inner_model(model)):
        return f"a {model.config.model_type} takes features from several layers of the tower"
    return None
