"""Strategies of Lightning for two processes on a CPU, without their checks for an accelerator."""

import os
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import torch
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    Strategy,
)
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from beft_lightning.strategies.fsdp import FSDPAdapterPrecision

TIMEOUT = timedelta(seconds=60)


class CPUFSDPPrecision(FSDPAdapterPrecision):
    """Mixed precision with autocast for the CPU."""

    def forward_context(self) -> Any:
        return torch.autocast("cpu", torch.bfloat16)


class CPUFSDPStrategy(FSDPStrategy):
    """FSDP without the checks for an accelerator."""

    def setup_environment(self) -> None:
        if self.precision_plugin.precision == "bf16-mixed":
            self.precision_plugin = CPUFSDPPrecision("bf16-mixed")
        super().setup_environment()

    def _setup_model(self, model: nn.Module) -> nn.Module:
        if isinstance(model, FullyShardedDataParallel):
            return model
        return FullyShardedDataParallel(
            model, device_id=torch.device("cpu"), mixed_precision=self.mixed_precision_config, **self.kwargs
        )


class CPUDeepSpeedStrategy(DeepSpeedStrategy):
    """DeepSpeed without the checks for an accelerator, and without its compiled all-reduce (97 s to build)."""

    @property
    def root_device(self) -> torch.device:
        return torch.device("cpu", 0)

    def setup_environment(self) -> None:
        import deepspeed.comm.torch  # noqa: F401

        # As an attribute, deepspeed.comm.torch is torch itself.
        vars(sys.modules["deepspeed.comm.torch"])["build_shm_op"] = lambda: None
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        reset_seed()
        self.set_world_ranks()
        self._init_deepspeed_distributed()


def _zero(stage: int, **options: Any) -> Strategy:
    return CPUDeepSpeedStrategy(stage=stage, timeout=TIMEOUT, process_group_backend="gloo", **options)


STRATEGIES: Mapping[str, Callable[[], Strategy]] = {
    "single": lambda: SingleDeviceStrategy("cpu"),
    "ddp": lambda: DDPStrategy(timeout=TIMEOUT),
    "fsdp": lambda: CPUFSDPStrategy(timeout=TIMEOUT),
    "fsdp2": lambda: ModelParallelStrategy(timeout=TIMEOUT),
    "zero1": lambda: _zero(1),
    "zero2": lambda: _zero(2),
    "zero3": lambda: _zero(3),
    "zero3_offload": lambda: _zero(3, offload_parameters=True),
}
