"""The optimizer's state divided among the processes of plain data parallel training (ZeRO-1), for GPUs that a whole
copy does not fit.

torch's own `ZeroRedundancyOptimizer` divides it: each process holds the state of some weights, updates these and sends
them to the others. Weights, gradients and state stay float32 and the update of a weight is computed as without it, so
the trained weights are the same to the bit. Checkpoints hold a file per process; any number of processes, dividing or
not, goes on from them.
"""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.optim import ZeroRedundancyOptimizer
from transformers import Trainer

from open_r1.common.errors import UserError

_Trainer = Trainer if TYPE_CHECKING else object


class ShardedOptimizer(ZeroRedundancyOptimizer):
    """torch's, whose `state_dict` is this process's part and needs no other process.

    States are numbered as the undivided optimizer numbers them: by the weight's place in `param_groups`.
    """

    def state_dict(self) -> dict[str, Any]:
        """In the form of an undivided optimizer, without the states that other processes hold."""
        numbers = _numbers(self.param_groups)
        state = {numbers[weight]: values for weight, values in self.optim.state.items()}
        groups = [group | {"params": [numbers[weight] for weight in group["params"]]} for group in self.param_groups]
        return {"state": dict(sorted(state.items())), "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take this process's states out of those of all, and the settings of the groups.

        torch's own would put AdamW's step counts on the CPU, where its fused kernel does not find them.
        """
        numbers, states = _numbers(self.param_groups), state_dict["state"]
        local = [numbers[weight] for group in self.optim.param_groups for weight in group["params"]]
        assert not states or all(number in states for number in local), "states of other weights than this process's"
        local_groups = self.optim.state_dict()["param_groups"]
        for group, local_group, stored in zip(self.param_groups, local_groups, state_dict["param_groups"], strict=True):
            settings = {name: value for name, value in stored.items() if name != "params"}
            group.update(settings)
            local_group.update(settings)
        mine = {place: states[number] for place, number in enumerate(local) if number in states}
        self.optim.load_state_dict({"state": mine, "param_groups": local_groups})


def _numbers(groups: Iterable[Mapping[str, Any]]) -> dict[torch.Tensor, int]:
    return {weight: number for number, weight in enumerate(weight for group in groups for weight in group["params"])}


class DividesOptimizer(_Trainer):
    """In front of transformers' Trainer: saves and loads the optimizer's state in parts once `divide_optimizer` ran."""

    divides_optimizer = False
    accelerator: Any
    args: Any
    model: Any
    optimizer: Any
    lr_scheduler: Any

    def divide_optimizer(self) -> None:
        """Divide the optimizer's state among the processes; to be called before `train`. One process keeps it whole.

        Gradients then lie in DDP's buckets and nowhere else, which saves one more copy of them. A micro-batch whose
        reduction is put off (`no_sync`) would begin such a copy, so each is reduced at once.

        Raises:
            UserError: DeepSpeed or FSDP divides the state already.
        """
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            engine = "DeepSpeed" if self.is_deepspeed_enabled else "FSDP"
            raise UserError(f"--shard_optimizer true: {engine} divides the optimizer itself; leave the flag out")
        if self.accelerator.num_processes == 1:
            return
        self.divides_optimizer = True
        self.accelerator.ddp_handler.gradient_as_bucket_view = True
        self.accelerator.no_sync = lambda model: nullcontext()

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As the Trainer's, its state divided where it is to be."""
        if self.divides_optimizer and self.optimizer is None:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer_cls_and_kwargs = ShardedOptimizer, {"optimizer_class": kind} | options
        return super().create_optimizer(model)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """As the Trainer's, with a file of each process for its part of the state."""
        if not self.divides_optimizer:
            return super()._save_optimizer_and_scheduler(output_dir)
        (name,) = part_names([self.args.process_index], self.args.world_size)
        torch.save(self.optimizer.state_dict(), Path(output_dir) / name)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As the Trainer's, whether the state was saved whole or in parts, of whatever number of processes."""
        files = [] if checkpoint is None else part_files(Path(checkpoint))
        if checkpoint is not None and self.divides_optimizer and not files:
            files = [Path(checkpoint) / "optimizer.pt"]
        if not files:
            return super()._load_optimizer_and_scheduler(checkpoint)
        # for a GPU nothing is read before it is needed; on a CPU the loaded tensors would go on lying in the files
        on_gpu = self.args.device.type != "cpu"
        parts = [torch.load(file, map_location="cpu", mmap=on_gpu, weights_only=True) for file in files]
        state = {number: values for part in parts for number, values in part["state"].items()}
        self.optimizer.load_state_dict({"state": state, "param_groups": parts[0]["param_groups"]})
        self.lr_scheduler.load_state_dict(torch.load(Path(str(checkpoint)) / "scheduler.pt", weights_only=True))


def part_names(ranks: Iterable[int], processes: int) -> list[str]:
    """Names of the files that these of so many processes write."""
    return [f"optimizer-{rank}-of-{processes}.pt" for rank in ranks]


def part_files(checkpoint: Path) -> list[Path]:
    """The files of a checkpoint whose optimizer was saved in parts; none where it was saved whole."""
    return sorted(checkpoint.glob("optimizer-*-of-*.pt"))
