"""From a rollout to the log-probabilities of a micro-batch the host waits for nothing that a GPU computes."""

import pytest
import torch
from fake_cuda import DEVICE, backward, fake_gpu
from fake_models import FakeAccelerator, fake_model, fake_prompts, published_config

from open_r1.modeling.prompt_batch import PromptBatch
from open_r1.training.grpo.groups import ScoredGroups
from open_r1.training.grpo.micro_batches import trim
from open_r1.training.grpo.packed_scoring import GroupPass, live_groups, score_groups


def test_lengths_and_advantages_are_fetched_once_per_rollout() -> None:
    mask = torch.tensor([[[1, 1, 0], [1, 0, 0]], [[1, 1, 1], [0, 0, 0]]])
    values = {"completion_mask": mask, "advantages": torch.tensor([[0.5, -0.5], [0.0, 0.0]])}
    batch = PromptBatch(torch.zeros(2, 1, dtype=torch.long), torch.ones(2, 1, dtype=torch.long), [0, 0])
    copies = ScoredGroups(batch, values, torch.zeros(2, 2, 1)).host_copies()
    assert copies["lengths_on_host"].tolist() == [[2, 1], [3, 0]]
    assert live_groups(copies["advantages_on_host"]) == [0]
    first = {name: value[:1] for name, value in (values | copies).items()}
    assert trim(first)["completion_mask"].tolist() == [[[1, 1], [1, 0]]]


@pytest.mark.slow
def test_a_micro_batch_waits_for_nothing() -> None:
    with fake_gpu() as gpu:
        model = fake_model(published_config("qwen2_5_vl_3b", layers=2))
        prompts = fake_prompts(model, 3)
        lengths = torch.tensor([[3, 7, 4, 9], [10, 2, 5, 1], [8, 8, 8, 2]])
        mask = (torch.arange(12) < lengths[..., None]).long().to(DEVICE)
        advantages = torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0] * 4, [2.0, -2.0, 0.0, 0.0]])
        values = {"completion_mask": mask, "completion_ids": torch.zeros_like(mask)}
        values |= {"lengths_on_host": lengths.float(), "advantages_on_host": advantages}
        with gpu.measured() as cost:
            trimmed = trim(values)
            assert trimmed["completion_mask"].shape == (3, 4, 10)
            live = live_groups(trimmed["advantages_on_host"])
            assert live == [0, 2]
            current = GroupPass(prompts.select([0, 1, 2]).trimmed(), live)
            ids, masks = current.live(trimmed["completion_ids"]), current.live(trimmed["completion_mask"])
            chosen = current.live_prompts()
            log_probs, entropies = score_groups(FakeAccelerator(), model, chosen, ids, masks, 2, True, False)
            log_probs, entropies = current.spread_scores(log_probs, entropies, masks)
            assert log_probs.shape == (12, 10)
            loss = log_probs.mean()
            del log_probs, entropies
            backward(loss)
        assert not cost.syncs
