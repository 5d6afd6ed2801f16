"""Every method of a library that a class of ours overrides, and every private name of a library that we use.

A library may change these without notice. `tests/project/test_seams.py` compares the table with the installed versions
and with the source, so an upgrade fails there and not in somebody's run. Written for torch 2.13, transformers 5.17,
TRL 1.16, accelerate 1.15 and DeepSpeed 0.19. After an upgrade a failing test prints the new signature: read what has
changed in the library, adapt the code, and correct the line.
"""

from typing import NamedTuple


class Seam(NamedTuple):
    """One name of a library that we depend on."""

    owner: str
    """`module:Class`, or `module:` for a name of the module itself."""
    name: str
    signature: str | None
    """Names of the parameters, with `=` after those that have a default. None: not a function, or only its name matters
    because we neither override nor call it."""
    reason: str


PARSER = "argparse:ArgumentParser"
TRAINER = "transformers.trainer:Trainer"
CALLBACK = "transformers.trainer_callback:TrainerCallback"
LAYER = "transformers.cache_utils:CacheLayerMixin"
GENERATION = "transformers.generation.utils:GenerationMixin"
TRACKERS = "transformers.integrations.integration_utils"
BASE = "trl.trainer.base_trainer:_BaseTrainer"
GRPO = "trl.trainer.grpo_trainer:GRPOTrainer"
SFT = "trl.trainer.sft_trainer:SFTTrainer"
SAMPLER = "trl.trainer.utils:RepeatSampler"
ZERO1 = "torch.distributed.optim.zero_redundancy_optimizer:ZeroRedundancyOptimizer"
ZERO3 = "deepspeed.runtime.zero.stage3:DeepSpeedZeroOptimizer_Stage3"

DISPATCH = "torch.utils._python_dispatch:TorchDispatchMode"
FUNCTION = "torch.autograd.function:_SingleLevelFunction"
TOWERS = {
    f"transformers.models.{module}": (tower, attention)
    for module, tower, attention in (
        ("qwen2_vl.modeling_qwen2_vl", "Qwen2VisionTransformerPretrainedModel", "VisionAttention"),
        (
            "qwen2_5_vl.modeling_qwen2_5_vl",
            "Qwen2_5_VisionTransformerPretrainedModel",
            "Qwen2_5_VLVisionAttention",
        ),
    )
}

LOSS = "self, model, inputs, return_outputs=, num_items_in_batch="
EVALUATE = "self, eval_dataset=, ignore_keys=, metric_key_prefix="
PREDICTION = "self, model, inputs, prediction_loss_only, ignore_keys="
EVENT = "self, args, state, control, **kwargs"

OVERRIDES = (
    # transformers: checkpoints that are complete or not there, resuming to the bit
    Seam(TRAINER, "train", "self, resume_from_checkpoint=, trial=, ignore_keys_for_eval=", "ends watchdog and signals"),
    Seam(
        TRAINER,
        "_run_epoch",
        "self, model, epoch, train_dataloader, steps_in_epoch, num_update_steps_per_epoch, trial, "
        "ignore_keys_for_eval, start_time, resume_from_checkpoint, epochs_trained, steps_trained_in_current_epoch",
        "order of the epoch; sums of the checkpoint",
    ),
    Seam(TRAINER, "_finalize_training", "self, trial, num_train_samples, start_time", "summary of the whole run"),
    Seam(TRAINER, "_get_output_dir", "self, trial", "a checkpoint is built in another folder"),
    Seam(GRPO, "_save_checkpoint", "self, model, trial", "a checkpoint is complete or not there"),
    Seam(SFT, "_save_checkpoint", "self, model, trial", "the same"),
    Seam(TRAINER, "save_model", "self, output_dir=, _internal_call=", "final weights are complete or not there"),
    Seam(TRAINER, "_save", "self, output_dir=, state_dict=", "training_args.bin without secrets"),
    Seam(TRAINER, "_push_from_checkpoint", "self, checkpoint_folder", "complete checkpoints alone are pushed"),
    Seam(TRAINER, "_load_rng_state", "self, checkpoint", "resuming on another number of processes"),
    Seam(GRPO, "_load_optimizer_and_scheduler", "self, checkpoint", "the learning rate of the new schedule"),
    Seam(TRAINER, "_load_optimizer_and_scheduler", "self, checkpoint", "the same, for SFT"),
    Seam(TRAINER, "_save_optimizer_and_scheduler", "self, output_dir", "a divided optimizer is saved in parts"),
    Seam(TRAINER, "create_optimizer", "self, model=", "a divided optimizer is made"),
    Seam(DISPATCH, "__torch_dispatch__", "self, func, types, args=, kwargs=", "bytes of a pass are counted"),
    Seam(ZERO1, "state_dict", "self", "this process's part, without the others"),
    Seam(ZERO1, "load_state_dict", "self, state_dict", "the same"),
    Seam(TRAINER, "_load_from_checkpoint", "self, resume_from_checkpoint, model=", "every tensor is checked"),
    Seam(TRAINER, "_load_best_model", "self", "every tensor is checked"),
    Seam(TRAINER, "_evaluate", "self, trial, ignore_keys_for_eval, skip_scheduler=", "a signal ends an evaluation"),
    Seam(TRAINER, "_determine_best_metric", "self, metrics, trial", "there are no metrics after a signal"),
    Seam(TRAINER, "_get_grad_norm", "self, model, grad_norm=", "a gradient that is not finite stops the run"),
    Seam(TRAINER, "evaluate", EVALUATE, "random numbers that are not the training's"),
    Seam(SFT, "evaluate", EVALUATE, "the same"),
    Seam(GRPO, "compute_loss", LOSS, "a loss that is not finite stops the run"),
    Seam(SFT, "compute_loss", LOSS, "the same"),
    Seam(GRPO, "prediction_step", PREDICTION, "watchdog and signals"),
    Seam(SFT, "prediction_step", PREDICTION, "the same"),
    Seam(GRPO, "training_step", "self, model, inputs, num_items_in_batch", "watchdog, gradients, costs"),
    Seam(SFT, "training_step", "self, *args, **kwargs", "watchdog, gradients"),
    Seam(CALLBACK, "on_train_begin", EVENT, "event"),
    Seam(CALLBACK, "on_step_end", EVENT, "event"),
    Seam(CALLBACK, "on_log", EVENT, "event"),
    Seam(CALLBACK, "on_save", EVENT, "event"),
    Seam(CALLBACK, "on_train_end", EVENT, "event"),
    Seam("transformers.training_args:TrainingArguments", "to_dict", "self", "trackers get no secrets"),
    Seam(LAYER, "update", "self, key_states, value_states, *args, **kwargs", "writes a token into memory that stays"),
    Seam(LAYER, "lazy_initialization", "self, key_states, value_states", "the memory is there"),
    Seam(LAYER, "get_seq_length", "self", "columns in use"),
    Seam(LAYER, "get_mask_sizes", "self, query_length", "columns in use"),
    Seam(LAYER, "get_max_length", "self", "columns that there is memory for"),
    # TRL: a prompt is computed once per group
    Seam(BASE, "create_model_card", "self, model_name=, dataset_name=, tags=", "our own model card"),
    Seam(BASE, "_send_telemetry", "self", "a run sends nothing unasked"),
    Seam(GRPO, "_get_train_sampler", "self, dataset=", "order of the epoch"),
    Seam(GRPO, "_generate_and_score_completions", "self, inputs", "groups stay together"),
    Seam(GRPO, "_tokenize_prompts", "self, prompts", "prompts are tokenized once per group"),
    Seam(
        GRPO,
        "_generate_single_turn",
        "self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=",
        "samples a group from one prefill",
    ),
    Seam(GRPO, "_calculate_rewards", "self, inputs, prompts, completions, completion_ids_list", "rewards are checked"),
    Seam(GRPO, "_compute_loss", "self, model, inputs", "divides a micro-batch by tokens"),
    Seam(
        GRPO,
        "_get_per_token_logps_and_entropies",
        "self, model, input_ids, attention_mask, logits_to_keep, batch_size=, compute_entropy=, compute_aux_loss=, "
        "pixel_values=, image_grid_thw=, num_images=, pixel_attention_mask=, spatial_shapes=, num_tiles=, "
        "image_sizes=, token_type_ids=, mm_token_type_ids=, image_position_ids=",
        "scores a group as one packed row",
    ),
    Seam("trl.trainer.grpo_config:GRPOConfig", "__post_init__", "self", "our defaults are resolved first"),
    Seam("trl.trainer.sft_config:SFTConfig", "__post_init__", "self", "the same"),
    Seam("trl.scripts.utils:TrlParser", "set_defaults_with_config", "self, **kwargs", "old keys; unknown keys"),
    Seam(SAMPLER, "__iter__", "self", "order of the epoch"),
    # torch: gradients of our own
    Seam(FUNCTION, "forward", "*args, **kwargs", "gathers whose gradient is a gather"),
    Seam(FUNCTION, "backward", "ctx, *grad_outputs", "the same"),
)

READS = (
    Seam("tqdm.std:tqdm", "_instances", None, "progress bars that an error left open"),
    Seam("transformers.training_args:TrainingArguments", "_setup_devices", None, "loading an optimizer on a CPU"),
    Seam(TRAINER, "_tr_loss", None, "sum behind the next logged line"),
    Seam(TRAINER, "_total_loss_scalar", None, "sum behind the next logged line"),
    Seam(TRAINER, "_globalstep_last_logged", None, "sum behind the next logged line"),
    Seam(SFT, "_metrics", None, "sums behind the next logged line"),
    Seam(SFT, "_total_train_tokens", None, "tokens of the whole run, also of a continued one"),
    Seam(GRPO, "_metrics", None, "sums behind the next logged line; metrics of ours"),
    Seam(GRPO, "_logs", None, "completions to log, as text"),
    Seam(GRPO, "_step", None, "which micro-step of a rollout it is"),
    Seam(GRPO, "_tokenizer", None, "padding token"),
    Seam(GRPO, "_dist", None, "gathers FSDP's weights for sampling"),
    Seam(GRPO, "_entropy_bonus_enabled", None, "groups without advantage are computed then"),
    Seam(SAMPLER, "num_samples", None, "order of the epoch"),
    Seam(f"{TRACKERS}:WandbCallback", "_wandb", None, "resumes the run of wandb"),
    Seam(f"{TRACKERS}:TensorBoardCallback", "_SummaryWriter", None, "resumes the log of TensorBoard"),
    Seam("transformers.integrations.deepspeed:", "_hf_deepspeed_config_weak_ref", None, "loads whole weights"),
    Seam("transformers.initialization:", "no_init_weights", "", "counts the weights of a config.json"),
    Seam("accelerate.state:PartialState", "_shared_state", None, "FSDP on CPUs"),
    Seam("torch._C:TensorBase", "_version", None, "whether a weight is newer than its copy in bfloat16"),
    Seam("deepspeed.ops:", "__compatible_ops__", None, "no compiling on CPUs"),
    Seam(ZERO3, "averaged_gradients", None, "a gradient that is not finite stops the run"),
    Seam("argparse:_ActionsContainer", "_actions", None, "kinds of TRL's flags"),
    Seam("argparse:_ActionsContainer", "_option_string_actions", None, "unknown flags"),
    Seam(PARSER, "_subparsers", None, "unknown flags"),
    Seam("argparse:", "_StoreAction", None, "kinds of TRL's flags"),
    Seam("argparse:", "_StoreFalseAction", None, "kinds of TRL's flags"),
    Seam(GENERATION, "_prepare_generation_config", None, "settings of a rollout are those of `generate`"),
    Seam(GENERATION, "_prepare_special_tokens", None, "settings of a rollout are those of `generate`"),
    Seam(GENERATION, "_get_logits_processor", None, "settings of a rollout are those of `generate`"),
    Seam(
        "transformers.configuration_utils:PreTrainedConfig",
        "_attn_implementation",
        None,
        "of tower and text",
    ),
    Seam("torch:ops.aten", "_flash_attention_backward", None, "merged attention of long completions"),
    Seam("torch:", "_assert_async", None, "image tokens and features are compared on the GPU"),
    *(
        Seam(f"{module}:{tower}", name, None, "attention of the vision tower in two calls a layer")
        for module, (tower, _) in TOWERS.items()
        for name in ("blocks", "patch_embed", "rotary_pos_emb")
    ),
    *(
        Seam(f"{module}:{attention}", name, None, "its queries, keys and values")
        for module, (_, attention) in TOWERS.items()
        for name in ("qkv", "proj", "num_heads", "scaling")
    ),
    *(
        Seam(
            f"{module}:{attention}",
            "forward",
            "self, hidden_states, cu_seqlens, position_embeddings=, max_seqlen=, **kwargs",
            "replaced",
        )
        for module, (_, attention) in TOWERS.items()
    ),
)

SEAMS = OVERRIDES + READS
