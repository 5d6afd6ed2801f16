"""What stands between TRL and vLLM, without vLLM; tests/vllm_cpu runs the real one."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from open_r1.evaluation.answering.backends.vllm_backend import use_own_gpu
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.training.grpo.vllm_sampling import (
    NEVER,
    changes_odds,
    collapse_runs,
    prepare_vllm,
    repeated_images,
    require_same_sampler,
)


class RecordingLLM:
    """Takes prompts as `vllm.LLM` does, and keeps them."""

    max_model_len = 77

    def generate(self, prompts: list[dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
        return prompts


def test_a_run_of_image_tokens_becomes_one_and_images_stay_apart() -> None:
    assert collapse_runs([1, 9, 9, 9, 2, 5, 5, 1, 9, 2], 9) == [1, 9, 2, 5, 5, 1, 9, 2]
    assert collapse_runs([5, 5], 9) == [5, 5]


def prepared(mode: str, config: Any, **options: Any) -> Any:
    processor = SimpleNamespace(image_processor=SimpleNamespace(size={"shortest_edge": 56, "longest_edge": 112}))
    generation = SimpleNamespace(mode=mode, generation_kwargs=options, llm=RecordingLLM())
    prepare_vllm(SimpleNamespace(vllm_generation=generation, model=SimpleNamespace(config=config),
                                 processing_class=processor))  # fmt: skip
    return generation


def test_prompts_with_images_reach_vllm_as_it_reads_them() -> None:
    generation = prepared("colocate", SimpleNamespace(image_token_id=9))
    plain, shown = {"prompt_token_ids": [9, 9]}, {"prompt_token_ids": [1, 9, 9, 2], "multi_modal_data": {"image": "x"}}
    requests = generation.llm.generate([plain, shown], sampling_params=None)
    assert requests[0] == plain
    assert requests[1]["prompt_token_ids"] == [1, 9, 2]
    assert requests[1]["mm_processor_kwargs"] == {"min_pixels": 56, "max_pixels": 112}
    assert requests[1]["multi_modal_data"] == {"image": "x"}
    assert shown["prompt_token_ids"] == [1, 9, 9, 2]
    assert generation.llm.max_model_len == 77


def test_image_tokens_are_forbidden_and_a_server_keeps_its_prompts() -> None:
    generation = prepared("server", SimpleNamespace(image_token_id=9, video_token_id=8), logit_bias={3: 1.0})
    assert generation.generation_kwargs["logit_bias"] == {8: NEVER, 9: NEVER, 3: 1.0}
    assert isinstance(generation.llm, RecordingLLM)
    assert prepared("colocate", SimpleNamespace()).generation_kwargs == {}


def test_images_are_repeated_for_each_completion() -> None:
    assert repeated_images([["a"], []], 2) == [["a"], ["a"], None, None]
    assert repeated_images([[], []], 2) is None


def test_another_sampler_is_refused_with_the_difference() -> None:
    trainer, mask = torch.full((2, 3), -1.0), torch.tensor([[1, 1, 1], [1, 0, 0]])
    sampled = trainer.clone()
    sampled[1, 1] = -50.0  # padding
    assert "verified on 4 tokens: mean difference 0.0e+00" in require_same_sampler(sampled, trainer, mask, False)
    sampled[0, 0] = -1.28  # a mean of 0.07 over four tokens: rounding of bfloat16, not of float32
    require_same_sampler(sampled, trainer, mask, True)
    with pytest.raises(RuntimeError, match=r"by 7\.00e-02 on average \(limit 0\.05\) and 2\.80e-01 at most"):
        require_same_sampler(sampled, trainer, mask, False)
    sampled[0, 0] = float("nan")  # vLLM has no value for it
    require_same_sampler(sampled, trainer, mask, False)


@pytest.mark.parametrize(
    ("change", "changed"),
    [({}, False), ({"top_p": 0.9}, True), ({"top_k": 5}, True), ({"min_p": 0.1}, True),
     ({"repetition_penalty": 1.1}, True), ({"generation_kwargs": {"top_h": 0.4}}, True)],
)  # fmt: skip
def test_options_after_which_probabilities_cannot_be_compared(change: dict[str, Any], changed: bool) -> None:
    off = {"top_p": 1.0, "top_k": 0, "min_p": None, "repetition_penalty": 1.0, "generation_kwargs": None}
    assert changes_odds(SimpleNamespace(**(off | change))) is changed


def test_every_process_of_an_evaluation_has_its_own_gpu() -> None:
    alone: dict[str, str] = {}
    use_own_gpu(alone)
    assert alone == {}
    second = {"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    use_own_gpu(second)
    assert second["CUDA_VISIBLE_DEVICES"] == "1"
    chosen = {"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": "4,6"}
    use_own_gpu(chosen)
    assert chosen["CUDA_VISIBLE_DEVICES"] == "6"


def test_vllm_gets_many_questions_at_once() -> None:
    settings = InferenceSettings(model_path="m", prompt_path="p", output_path="o", batch_size=8)
    assert settings.questions_at_once == 8
    vllm = InferenceSettings(model_path="m", prompt_path="p", output_path="o", batch_size=8, backend="vllm")
    assert vllm.questions_at_once == 1024
