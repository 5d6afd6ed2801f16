"""Which options of TRL's GRPOConfig this trainer serves, and why it refuses the others: each option stands here once.

An option that would be taken without a word and then do nothing, or do something else, is refused. A field that a new
version of transformers or TRL brings stands in neither table and fails tests/training/test_trl_options.py until it is
judged.
"""

from collections.abc import Mapping
from typing import Any

from open_r1.common.errors import UserError


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


SERVED = _names("""
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

_NO_LABELS = "it belongs to metrics over labels, which GRPO has none of; rewards are logged instead"
_BATCHING = (
    "groups are sampled from one prefill, which continuous batching does not know; leave it out, or sample with "
    "--use_vllm true"
)
_ORDER = "questions come in the order of --seed or --curriculum, whatever it says; leave it out"
REFUSED: dict[str, str] = {
    "use_transformers_continuous_batching": _BATCHING,
    "transformers_continuous_batching_config": _BATCHING,
    "use_transformers_paged": _BATCHING,
    "max_tool_calling_iterations": "no question here comes with tools; leave it out",
    "router_aux_loss_coef": "no model family here is a mixture of experts; leave it out",
    "model_init_kwargs": "the model is loaded as --dtype, --attn_implementation and --load_in_4bit say; use those",
    "auto_find_batch_size": "a smaller batch would no longer hold whole groups; lower "
    "--per_device_train_batch_size, or use --tokens_per_micro_batch",
    "train_sampling_strategy": _ORDER,
    "length_column_name": _ORDER,
    "data_seed": "--seed decides the order of the questions; leave it out",
    "label_smoothing_factor": "GRPO's loss has no labels to smooth; leave it out",
    "neftune_noise_alpha": "noise is drawn anew in every pass, so log-probabilities of one completion would differ "
    "between the passes that GRPO compares; leave it out",
    "label_names": _NO_LABELS,
    "include_for_metrics": _NO_LABELS,
    "batch_eval_metrics": _NO_LABELS,
    "do_predict": "eval/infer.py asks a trained model; leave it out",
    "bf16_full_eval": "questions asked while training are answered in the training's number format; leave it out",
    "fp16_full_eval": "questions asked while training are answered in the training's number format; leave it out",
    "include_num_input_tokens_seen": "tokens are counted by num_tokens in metrics.jsonl; leave it out",
    "enable_jit_checkpoint": "SIGTERM and SIGUSR1 save a whole checkpoint without it; leave it out",
    "hub_revision": "weights and card are published to the main branch; leave it out",
    "remove_unused_columns": "rewards read the columns problem and solution; leave it out",
    "log_multimodal": "it would upload patients' images; --log_completions alone logs prompts and completions as text",
    "trust_remote_code": "it would run code that a checkpoint brings, which nothing here needs; leave it out",
}
# What turns a refused option off, beside None, false, zero and nothing.
_USUAL = {"train_sampling_strategy": "random", "length_column_name": "length", "include_num_input_tokens_seen": "no"}

# Of --generation_kwargs: what shapes the distribution of the next token, and so can be sampled from one prefill.
SAMPLING_KEYS = _names("""
    temperature top_p top_k top_h min_p typical_p epsilon_cutoff eta_cutoff repetition_penalty no_repeat_ngram_size
    bad_words_ids sequence_bias min_new_tokens max_new_tokens exponential_decay_length_penalty suppress_tokens
    begin_suppress_tokens renormalize_logits remove_invalid_values forced_eos_token_id eos_token_id
""")


def refuse_unsupported(values: Mapping[str, Any]) -> None:
    """Refuse options that this trainer would take without serving them.

    Args:
        values: options of GRPOConfig by name; those that are not given may be missing.

    Raises:
        UserError: the first of them, and why.
    """
    for name, why in REFUSED.items():
        value = values.get(name)
        if name == "log_multimodal" and not values.get("log_completions"):
            continue  # TRL's default, which does nothing by itself
        if value and value != _USUAL.get(name) and str(value) != _USUAL.get(name):
            raise UserError(f"--{name} {_shown(value)}: {why}")


def refuse_with_shared_prefix(arguments: Any, given: Mapping[str, Any]) -> None:
    """Refuse what the shared prefix cannot serve and stock TRL's rows can.

    Args:
        arguments: training arguments.
        given: what the trainer is given beside them, by name.

    Raises:
        UserError: the first such option, and the way out.
    """
    for name in ("tools", "environment_factory", "rollout_func"):
        if given.get(name):
            raise UserError(
                f"{name} changes prompts or completions after they were prepared, and a group's prefix is computed "
                "before: shared_prefix=False trains with it, as stock TRL does"
            )
    if arguments.use_vllm:
        return
    if arguments.cache_implementation is not None:
        raise UserError(
            f"--cache_implementation {arguments.cache_implementation}: the completions of a group go on from the cache "
            "of their shared prefill, which is a dynamic one; leave it out, or give --shared_prefix false"
        )
    if arguments.pad_to_multiple_of is not None:
        raise UserError(
            f"--pad_to_multiple_of {arguments.pad_to_multiple_of}: a group's prompt is packed with its completions, "
            "without such padding; leave it out, or give --shared_prefix false"
        )
    strange = sorted((arguments.generation_kwargs or {}).keys() - SAMPLING_KEYS)
    if strange:
        raise UserError(
            f"--generation_kwargs {strange[0]}: the completions of a group are sampled together from one prefill, for "
            f"which only {', '.join(sorted(SAMPLING_KEYS))} make sense; leave it out, or give --shared_prefix false"
        )


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
