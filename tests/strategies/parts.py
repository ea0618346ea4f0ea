"""Callbacks, an optimizer and a module for the runs of two processes."""

import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.utils.data import DataLoader, DistributedSampler, Sampler

from beft_lightning.strategies.adaptation import adapt
from tests.tiny import ForeignModule, token_batches


class Losses(Callback):
    """The training losses, averaged over the processes."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.values.append(trainer.strategy.reduce(outputs["loss"].detach(), reduce_op="mean").item())


class Drift(torch.optim.Optimizer):
    """Moves every value by the learning rate in each step, whatever its gradient."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 1e-4})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.add_(group["lr"])
        return loss


class WhenConfigured(Callback):
    """Calls a function with the module once ``configure_model`` has made the model."""

    def __init__(self, action: Callable[[Any], None]) -> None:
        self.action = action

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        adapt(trainer.strategy).before_restore(partial(self.action, pl_module))


class Kill(Callback):
    """Rank 1 dies in the second epoch, as if its machine had."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 1 and batch_idx == 2 and trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)


class Terminate(Callback):
    """Rank 1 is told to end in the fourth step."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 3 and trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)


class ShardsItself(ForeignModule):
    """Somebody else's module that shards its model for FSDP2, and trains its head beside a bias."""

    def configure_model(self) -> None:
        if self.device_mesh is not None and not isinstance(self.net, FSDPModule):
            mesh = self.device_mesh["data_parallel"]
            model: Any = self.net
            for layer in model.bert.encoder.layer:
                fully_shard(layer, mesh=mesh)
            for child in (self.net, self.extra):
                fully_shard(child, mesh=mesh)


class SharesOut(ForeignModule):
    """Somebody else's module with a loader of its own: each batch of 8 is shared out between the processes."""

    def train_dataloader(self) -> DataLoader[Any]:
        dataset = token_batches(examples=32).dataset
        processes, rank = self.trainer.world_size, self.trainer.global_rank
        sampler: Sampler[int] = DistributedSampler(dataset, processes, rank, shuffle=False)
        return DataLoader(dataset, batch_size=8 // processes, sampler=sampler)
