"""Which options of the GRPO trainer go together, and the line that says which way a run goes."""

from typing import Any

from open_r1.checkpoints.families import windowed_layers
from open_r1.common.errors import UserError
from open_r1.modeling.sharding import weights_are_sharded
from open_r1.training.command_line.trl_options import refuse_beside_shared_prefix, refuse_unserved
from open_r1.training.grpo.resampling import CORRECT


def require_served(given: dict[str, Any], shared_prefix: bool) -> None:
    """Refuse options of TRL that a trainer with these arguments would not serve.

    Args:
        given: arguments of `trl.GRPOTrainer`.
        shared_prefix: whether the trainer shares the prefix.

    Raises:
        UserError: with the option and the reason.
    """
    arguments, model = given["args"], given["model"]
    refuse_unserved(vars(arguments) | ({"model_init_kwargs": None} if isinstance(model, str) else {}))
    if shared_prefix and (isinstance(model, str) or not windowed_layers(model.config)):
        refuse_beside_shared_prefix(arguments, given)


def require_compatible(trainer: Any) -> None:
    """Refuse options of a `SharedPrefixGRPOTrainer` that exclude each other.

    Raises:
        UserError: with the options and what to leave out.
    """
    if not trainer.shared_prefix:
        if trainer.tokens_per_micro_batch or trainer.resample_dead_groups:
            raise UserError(
                "tokens_per_micro_batch and resample_dead_groups work on whole groups, which stock TRL's rows are "
                "not: leave them out or leave shared_prefix on"
            )
        return
    if trainer.args.per_device_train_batch_size % trainer.num_generations:
        raise UserError(
            f"per_device_train_batch_size ({trainer.args.per_device_train_batch_size} completions) is no multiple "
            f"of num_generations ({trainer.num_generations}): a group must lie in one micro-batch to share its prefix"
        )
    if trainer.tokens_per_micro_batch and (trainer._entropy_bonus_enabled or trainer.top_entropy_quantile < 1):
        raise UserError(
            "tokens_per_micro_batch divides a batch whose entropy terms are means over all its tokens: "
            "leave out the entropy bonus and top_entropy_quantile, or tokens_per_micro_batch"
        )
    if trainer.resample_dead_groups and not set(CORRECT) & set(trainer.reward_func_names):
        raise UserError(
            "resample_dead_groups takes groups that are right in part, which the other rewards cannot tell: "
            "add the accuracy reward or leave resample_dead_groups out"
        )
    if trainer.resample_dead_groups and trainer.scale_rewards == "batch":
        raise UserError("resample_dead_groups mixes batches, so it does not go with scale_rewards batch; use group")


def path_line(trainer: Any) -> str:
    """One line: which way sampling and training go, and why where it is not the shared prefix."""
    if trainer.windowed:
        return (
            f"shared prefix: off, because {trainer.windowed} of the {trainer.model.config.model_type}'s layers look "
            "back over a window only, which the packed rows do not keep; stock TRL computes every prompt once per "
            "completion"
        )
    if not trainer.shared_prefix:
        return "shared prefix: off (--shared_prefix false); stock TRL computes every prompt once per completion"
    if not trainer.share_rollout:
        sampler = "vLLM" if trainer.use_vllm else "stock TRL"
        return f"shared prefix: on in training; {sampler} samples, with its own handling of the prompts of a group"
    frozen = "; vision features once per image and run" if trainer.images.keeps_features else ""
    if trainer.vision_tower_is_frozen and weights_are_sharded():
        frozen = "; with sharded weights the frozen tower's features are not kept"
    return f"shared prefix: on (image, vision tower and prompt once per group, in sampling and training{frozen})"
