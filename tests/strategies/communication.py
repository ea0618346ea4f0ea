"""What a training step gives to the other processes."""

from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp._fully_shard._fsdp_collectives import DefaultAllGather, DefaultReduceScatter
from torch.nn.parallel import DistributedDataParallel


class CountCommunication(Callback):
    """Counts the bytes that this process hands over in training, under DDP and FSDP2.

    Attributes:
        reduced: Bytes of gradients, to be averaged over the processes.
        gathered: Bytes of this process's shards of the weights, for the others to compute with (FSDP2).
    """

    reduced = 0
    gathered = 0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Stand where the collective operations are called."""
        model: Any = trainer.strategy.model
        if isinstance(model, DistributedDataParallel):
            model.register_comm_hook(dist.group.WORLD, self._all_reduce)
        for child in pl_module.modules():
            if isinstance(child, FSDPModule):
                child.set_custom_reduce_scatter(_CountedReduceScatter(self))
                child.set_custom_all_gather(_CountedAllGather(self))

    def _all_reduce(self, group: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        self.reduced += bucket.buffer().nbytes
        return allreduce_hook(group, bucket)


class _CountedReduceScatter(DefaultReduceScatter):
    def __init__(self, counter: CountCommunication) -> None:
        super().__init__()
        self.counter = counter

    def __call__(self, output_tensor: torch.Tensor, input_tensor: torch.Tensor, *args: Any, **options: Any) -> Any:
        self.counter.reduced += input_tensor.nbytes
        return super().__call__(output_tensor, input_tensor, *args, **options)


class _CountedAllGather(DefaultAllGather):
    def __init__(self, counter: CountCommunication) -> None:
        super().__init__()
        self.counter = counter

    def __call__(self, output_tensor: torch.Tensor, input_tensor: torch.Tensor, *args: Any, **options: Any) -> Any:
        self.counter.gathered += input_tensor.nbytes
        return super().__call__(output_tensor, input_tensor, *args, **options)
