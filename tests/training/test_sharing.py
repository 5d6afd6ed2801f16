"""Which families share the prefix is decided by trying the class of the model, not by a list of names."""

from typing import Any

import pytest
import torch
from groups import IDS, make_groups, packed_logps, stock_logps
from transformers import AutoModelForCausalLM, PreTrainedModel
from trl.trainer.utils import add_fused_lm_head

from open_r1.modeling.decoding.loop import DecodingLoop
from open_r1.modeling.family_probe import decoding_support, windowed_layers
from open_r1.modeling.segment_attention import prepare_model
from open_r1.training.grpo import verification
from open_r1.training.grpo.verification import unshared_reason
from open_r1_testbed.tiny_models import Shape, build_model

SHARED = ("llama", "qwen3", "mistral", "phi3", "gemma", "smollm3", "olmo2", "granite", "cohere", "glm", "qwen3_moe")


def small(family: str, **settings: Any) -> Any:
    model: Any = build_model(family, Shape(), 320, IDS, seed=0)
    if not settings:
        return model
    for name, value in settings.items():
        setattr(model.config, name, value)
    return AutoModelForCausalLM.from_config(model.config)


@pytest.mark.slow
@pytest.mark.parametrize("family", SHARED)
def test_what_the_probe_lets_share_is_exact(family: str) -> None:
    """Log-probabilities of packed rows equal TRL's rows on a model that the probe did not see."""
    model = small(family, sliding_window=None) if family in ("mistral", "phi3") else small(family)
    assert decoding_support(model).refusal is None
    assert unshared_reason(model) is None
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(3)
        add_fused_lm_head(model, temperature=1.0, outputs=("log_probs", "entropy"))
        groups = make_groups(model.config, [[], [], []], [40, 33, 52], [[5, 7, 2], [4, 4, 7], [1, 3, 7]])
        expected, _ = stock_logps(model.eval(), groups)
        prepare_model(model)
        mask = groups.completion_mask.flatten(0, 1).bool()
        for by_segment in (False, True):
            log_probs, _ = packed_logps(model, groups, by_segment)
            assert (log_probs - expected)[mask].abs().max() < 1e-5
        assert log_probs[mask].std() > 0.02, "a uniform model would agree with anything"


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("gpt2", "packed row differ by"),
        ("stablelm", "packed row differ by"),
        ("gemma2", "1 of its layers use sliding-window attention"),
        ("bloom", "a cached token cannot be computed"),
    ],
)
def test_what_a_class_cannot_do_is_said(family: str, reason: str) -> None:
    model = small(family)
    assert reason in str(unshared_reason(model))
    assert (decoding_support(model).refusal is None) == (family != "bloom")


def test_scaled_and_capped_logits_are_noticed() -> None:
    assert decoding_support(small("llama")).has_plain_head
    assert not decoding_support(small("cohere")).has_plain_head  # logit_scale
    assert not decoding_support(small("gemma2")).has_plain_head  # final_logit_softcapping


def test_a_window_of_older_configs_counts() -> None:
    assert windowed_layers(small("mistral", sliding_window=16).config) == 2
    assert windowed_layers(small("mistral", sliding_window=None).config) == 0
    assert "2 of its layers" in str(unshared_reason(small("mistral", sliding_window=16)))


def test_a_class_is_tried_once_and_the_random_state_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("llama")
    state = torch.random.get_rng_state()
    weights = [weight.clone() for weight in model.parameters()]
    assert unshared_reason(model) is None
    monkeypatch.setattr(DecodingLoop, "__call__", None)
    monkeypatch.setattr(verification, "pack", None)
    assert unshared_reason(model) is None
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert model.config._attn_implementation == "sdpa"


def test_a_class_with_wrong_positions_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that ignores position ids would compute every segment but the first at wrong places."""
    model = small("qwen3")
    kind: type[PreTrainedModel] = type(model)

    class IgnoresPositions(kind):  # type: ignore[misc, valid-type]
        def forward(self, *args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
            return super().forward(*args, **kwargs)

    assert unshared_reason(IgnoresPositions(model.config)) is not None
