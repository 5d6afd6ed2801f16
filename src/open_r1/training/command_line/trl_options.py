"""Options of TRL's GRPOConfig that this trainer supports, and those that it refuses, with reasons.

An option that would silently have no effect, or another one, is refused. Every option is in exactly one table; a field
that a new version of transformers or TRL adds fails tests/training/test_trl_options.py until it is added here.
"""

from collections.abc import Mapping
from typing import Any

from open_r1.common.errors import UserError


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


SUPPORTED = _names("""
    output_dir per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type
    lr_scheduler_kwargs warmup_steps optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon
    optim_target_modules gradient_accumulation_steps average_tokens_across_devices max_grad_norm bf16 fp16 tf32
    gradient_checkpointing gradient_checkpointing_kwargs
    torch_compile torch_compile_backend torch_compile_mode use_liger_kernel liger_kernel_config use_cache
    torch_empty_cache_steps logging_strategy logging_steps logging_first_step log_on_each_node logging_nan_inf_filter
    log_level log_level_replica disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id
    trackio_static_space_id eval_strategy eval_steps eval_delay per_device_eval_batch_size prediction_loss_only
    eval_on_start eval_do_concat_batches eval_use_gather_object eval_accumulation_steps save_only_model save_strategy
    save_steps save_on_each_node save_total_limit push_to_hub hub_token hub_private_repo hub_model_id hub_strategy
    hub_always_push load_best_model_at_end metric_for_best_model greater_is_better ignore_data_skip
    restore_callback_states_from_checkpoint full_determinism seed use_cpu accelerator_config parallelism_config
    dataloader_drop_last dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers
    dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order ddp_find_unused_parameters
    ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config deepspeed debug
    skip_memory_metrics do_train do_eval resume_from_checkpoint local_rank
    disable_dropout cast_lm_head_to_fp32 num_generations num_generations_eval max_completion_length
    ds3_gather_for_generation shuffle_dataset generation_batch_size steps_per_generation temperature top_p top_k min_p
    generation_kwargs chat_template_kwargs repetition_penalty cache_implementation pad_to_multiple_of
    use_vllm vllm_mode vllm_model_impl vllm_enable_sleep_mode vllm_structured_outputs_regex vllm_server_base_url
    vllm_server_host vllm_server_port vllm_server_timeout vllm_group_port vllm_gpu_memory_utilization
    vllm_max_model_length vllm_tensor_parallel_size vllm_importance_sampling_correction vllm_importance_sampling_mode
    vllm_importance_sampling_clip_max vllm_importance_sampling_clip_min vllm_importance_sampling_cap
    beta num_iterations epsilon delta epsilon_high sapo_temperature_neg sapo_temperature_pos vespo_k_pos
    vespo_lambda_pos vespo_k_neg vespo_lambda_neg importance_sampling_level reward_weights
    multi_objective_aggregation scale_rewards loss_type mask_truncated_completions sync_ref_model
    ref_model_mixup_alpha ref_model_sync_steps top_entropy_quantile entropy_coef use_adaptive_entropy entropy_coef_min
    entropy_coef_max entropy_coef_delta entropy_target off_policy_mask_threshold use_bias_correction_kl
    log_completions num_completions_to_print log_unique_prompts log_completions_hub_repo
""")

_NO_LABELS = "it is for metrics over labels, and GRPO has no labels; rewards are logged instead"
_BATCHING = (
    "groups are sampled from one prefill, which continuous batching does not support; leave it out, or use "
    "--use_vllm true"
)
_ORDER = "--seed or --curriculum decides the order of the questions; leave it out"
REFUSED: dict[str, str] = {
    "use_transformers_continuous_batching": _BATCHING,
    "transformers_continuous_batching_config": _BATCHING,
    "use_transformers_paged": _BATCHING,
    "max_tool_calling_iterations": "no data set here has tools; leave it out",
    "router_aux_loss_coef": "no supported model is a mixture of experts; leave it out",
    "model_init_kwargs": "--dtype, --attn_implementation and --load_in_4bit decide how the model is loaded; use those",
    "auto_find_batch_size": "a smaller batch might not hold whole groups; lower "
    "--per_device_train_batch_size, or use --tokens_per_micro_batch",
    "train_sampling_strategy": _ORDER,
    "length_column_name": _ORDER,
    "data_seed": "--seed decides the order of the questions; leave it out",
    "label_smoothing_factor": "GRPO's loss has no labels to smooth; leave it out",
    "neftune_noise_alpha": "every pass would have other noise, so GRPO would compare log-probabilities that differ by "
    "noise; leave it out",
    "label_names": _NO_LABELS,
    "include_for_metrics": _NO_LABELS,
    "batch_eval_metrics": _NO_LABELS,
    "do_predict": "use eval/infer.py on the trained model",
    "bf16_full_eval": "evaluation during training uses the data type of the training; leave it out",
    "fp16_full_eval": "evaluation during training uses the data type of the training; leave it out",
    "include_num_input_tokens_seen": "num_tokens in metrics.jsonl counts tokens; leave it out",
    "enable_jit_checkpoint": "SIGTERM and SIGUSR1 save a complete checkpoint without it; leave it out",
    "hub_revision": "weights and card are published to the main branch; leave it out",
    "remove_unused_columns": "rewards read the columns problem and solution; leave it out",
    "log_multimodal": "it would upload patients' images; --log_completions alone logs prompts and completions as text",
    "trust_remote_code": "it would run code from a checkpoint, which no supported model needs; leave it out",
}
# Values that turn a refused option off, besides None, false, zero and empty.
_OFF = {"train_sampling_strategy": "random", "length_column_name": "length", "include_num_input_tokens_seen": "no"}

# Keys of --generation_kwargs that shape the distribution of the next token, and so work with one prefill per group.
SAMPLING_KEYS = _names("""
    temperature top_p top_k top_h min_p typical_p epsilon_cutoff eta_cutoff repetition_penalty no_repeat_ngram_size
    bad_words_ids sequence_bias min_new_tokens max_new_tokens exponential_decay_length_penalty suppress_tokens
    begin_suppress_tokens renormalize_logits remove_invalid_values forced_eos_token_id eos_token_id
""")


def refuse_unsupported(values: Mapping[str, Any]) -> None:
    """Refuse options that this trainer does not support.

    Args:
        values: options of GRPOConfig by name.

    Raises:
        UserError: with the first of them and the reason.
    """
    for name, reason in REFUSED.items():
        value = values.get(name)
        if name == "log_multimodal" and not values.get("log_completions"):
            continue  # TRL's default, which does nothing by itself
        if value and value != _OFF.get(name) and str(value) != _OFF.get(name):
            raise UserError(f"--{name} {_flag_text(value)}: {reason}")


def refuse_with_shared_prefix(arguments: Any, trainer_arguments: Mapping[str, Any]) -> None:
    """Refuse options that work with stock TRL but not with the shared prefix.

    Args:
        arguments: training arguments.
        trainer_arguments: arguments of `trl.GRPOTrainer`.

    Raises:
        UserError: with the first of them and what to do.
    """
    for name in ("tools", "environment_factory", "rollout_func"):
        if trainer_arguments.get(name):
            raise UserError(
                f"{name} changes prompts or completions after the shared prefix of their group was computed; "
                "shared_prefix=False trains with it"
            )
    if arguments.use_vllm:
        return
    if arguments.cache_implementation is not None:
        raise UserError(
            f"--cache_implementation {arguments.cache_implementation}: the completions of a group share a "
            "dynamic cache; leave it out, or give --shared_prefix false"
        )
    if arguments.pad_to_multiple_of is not None:
        raise UserError(
            f"--pad_to_multiple_of {arguments.pad_to_multiple_of}: prompts and completions are packed into "
            "one row without such padding; leave it out, or give --shared_prefix false"
        )
    unsupported = sorted((arguments.generation_kwargs or {}).keys() - SAMPLING_KEYS)
    if unsupported:
        raise UserError(
            f"--generation_kwargs {unsupported[0]}: sampling a group from one prefill supports only "
            f"{', '.join(sorted(SAMPLING_KEYS))}; leave it out, or give --shared_prefix false"
        )


def _flag_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
