"""One process of a run under several strategies; ``test_strategies.py`` starts two of them with torchrun.

Usage: ``strategy_worker.py OUT BACKBONE DATA STRATEGY ...``. For each strategy, rank 0 leaves ``OUT/STRATEGY.json``.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import torch
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
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

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback, LanguageTaskModule
from beft_lightning.callbacks import PredictionWriter
from beft_lightning.callbacks.adapter_checkpoint import read_checkpoint
from beft_lightning.data import Glue
from beft_lightning.strategies import named_parameters, whole

BATCH = 8
TIMEOUT = timedelta(seconds=60)


class CPUFSDPStrategy(FSDPStrategy):
    """FSDP without the checks for an accelerator."""

    def _setup_model(self, model: nn.Module) -> nn.Module:
        device = torch.device("cpu")
        return FullyShardedDataParallel(model, device_id=device, mixed_precision=self.mixed_precision, **self.kwargs)


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
    "fsdp2": lambda: ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1, timeout=TIMEOUT),
    "zero1": lambda: _zero(1),
    "zero2": lambda: _zero(2),
    "zero3": lambda: _zero(3),
    "zero3_offload": lambda: _zero(3, offload_parameters=True),
}


class Losses(Callback):
    """The training losses, averaged over the processes."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.values.append(trainer.strategy.reduce(outputs["loss"].detach(), reduce_op="mean").item())


class Runs:
    """Runs of a tiny encoder under one strategy, each with a module of its own."""

    def __init__(self, out: Path, backbone: str, data: str, strategy: str) -> None:
        self.out, self.backbone, self.data, self.strategy = out, backbone, data, strategy
        self.processes = int(os.environ.get("WORLD_SIZE", "1"))
        self.losses = Losses()
        self.selection = BiasSelectionCallback(batches=4, patience=0)

    def trainer(self, epochs: int = 2, **options: Any) -> Trainer:
        self.losses = Losses()
        self.selection = BiasSelectionCallback(batches=4, patience=0)
        # Of the checkpoints, one for each epoch.
        saving = ModelCheckpoint(self.out / self.strategy, filename="{epoch}", save_top_k=-1)
        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        seed_everything(0, verbose=False)
        return Trainer(
            accelerator="cpu",
            devices=local,
            num_nodes=self.processes // local,
            strategy=STRATEGIES[self.strategy](),
            max_epochs=epochs,
            gradient_clip_val=1.0,
            callbacks=[self.selection, saving, self.losses, AdapterCheckpoint(), PredictionWriter()],
            default_root_dir=self.out / self.strategy,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )

    def parts(self) -> dict[str, Any]:
        """A fresh module and its data."""
        data = Glue(
            self.backbone,
            task="sst2",
            data_dir=self.data,
            batch_size=BATCH // self.processes,
            eval_batch_size=4,
            seed=0,
        )
        return {"model": LanguageTaskModule(self.backbone, data.task, learning_rate=1e-2), "datamodule": data}

    def checkpoint(self, epoch: int) -> Path:
        return self.out / self.strategy / f"epoch={epoch}.ckpt"

    def all(self) -> dict[str, Any]:
        """Select and train; resume after the first epoch; evaluate the second."""
        parts, trainer = self.parts(), self.trainer()
        trainer.fit(**parts)
        assert self.selection.scores is not None
        scores = {term: entry.layers for term, entry in self.selection.scores.terms.items()}
        result: dict[str, Any] = {
            "scores": scores,
            "selected": self.selection.selected,
            "parameters": self.selection.scores.terms["value"].parameters,
            "losses": self.losses.values,
            "metrics": _metrics(trainer),
            "trained": _trained(parts["model"]),
            "names": self.selection.trained,
        }
        path = self.checkpoint(1)
        parts, trainer = self.parts(), self.trainer()
        trainer.fit(**parts, ckpt_path=self.checkpoint(0), weights_only=True)
        result["resumed"] = {
            "losses": self.losses.values,
            "trained": _trained(parts["model"]),
            "scoring": self.selection.seconds,
        }
        for command in ("validate", "test", "predict"):
            trainer = self.trainer()
            answer = getattr(trainer, command)(**self.parts(), ckpt_path=path, weights_only=True)
            result[command] = (
                sorted((row["id"], row["prediction"]) for batch in answer for row in batch["rows"])
                if command == "predict"
                else _metrics(trainer)
            )
        state = read_checkpoint(path)["state_dict"]
        result["checkpoint"] = {"names": sorted(state), "values": {n: v.tolist() for n, v in state.items()}}
        return result


def _metrics(trainer: Trainer) -> dict[str, float]:
    return {name: value.item() for name, value in trainer.callback_metrics.items() if name != "train_loss"}


def _trained(module: nn.Module) -> dict[str, list[float]]:
    return {n: whole(p).flatten().tolist() for n, p in named_parameters(module) if p.requires_grad}


import faulthandler; faulthandler.dump_traceback_later(40)
def main(out: str, backbone: str, data: str, *strategies: str) -> None:
    for strategy in strategies:
        result = Runs(Path(out), backbone, data, strategy).all()
        rank = os.environ.get("RANK", "0")
        (Path(out) / f"{strategy}-{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
