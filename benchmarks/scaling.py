"""Two processes against one: time of an epoch, and what the processes send each other.

    python -m benchmarks.scaling --data-dir DATA [--examples 1000] [--epochs 3] [--batch 32]

MiniLM's value bias and head on SST-2, one thread for each process, the same examples in each optimizer step: one
process with batches of ``--batch``, and two with half of that each, under DDP and FSDP2, over gloo.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import rich
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from rich.table import Table

from beft_lightning import LanguageTaskModule
from beft_lightning.data import Glue
from benchmarks.encoder import MINILM
from tests.strategies.communication import CountCommunication

STRATEGIES = {"ddp": DDPStrategy, "fsdp2": ModelParallelStrategy}


class EpochSeconds(Callback):
    """Seconds of each epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_epoch_end(self, *_: Any) -> None:
        """Stop it."""
        self.seconds.append(time.perf_counter() - self._start)


def work(arguments: argparse.Namespace) -> None:
    """One process of a run; the first one leaves what it measured."""
    processes = int(os.environ["WORLD_SIZE"])
    seed_everything(0, verbose=False)
    options: dict[str, Any] = {"train_size": arguments.examples, "batch_size": arguments.batch // processes, "seed": 0}
    data = Glue(MINILM, task="sst2", data_dir=arguments.data_dir, **options)
    sent, clock = CountCommunication(), EpochSeconds()
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    strategy: Any = STRATEGIES[arguments.strategy]()
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=strategy,
        max_epochs=arguments.epochs,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        default_root_dir=arguments.out,
        callbacks=[sent, clock],
        **quiet,  # type: ignore[arg-type]
    )
    trainer.fit(LanguageTaskModule(MINILM, data.task, tune="value"), datamodule=data)
    if trainer.is_global_zero:
        steps = trainer.global_step
        measured = {
            "seconds": statistics.median(clock.seconds),
            # One process has nobody to send anything to.
            "reduced": sent.reduced // steps if processes > 1 else 0,
            "gathered": sent.gathered // steps if processes > 1 else 0,
        }
        Path(arguments.out, "measured.json").write_text(json.dumps(measured))


def measure(arguments: argparse.Namespace, strategy: str, processes: int) -> dict[str, float]:
    """What a run of that many processes leaves."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command += ["-m", "benchmarks.scaling", "--strategy", strategy, "--out", folder]
        command += [f"--{name}={getattr(arguments, name.replace('-', '_'))}" for name in SIZES]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        measured: dict[str, float] = json.loads(Path(folder, "measured.json").read_text())
        return measured


SIZES = ("data-dir", "examples", "epochs", "batch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32, help="examples in an optimizer step, over all processes")
    parser.add_argument("--strategy", choices=STRATEGIES, help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.out:
        work(arguments)
        return
    table = Table(title=f"{arguments.examples} sentences, {arguments.batch} in a step, one thread for each process")
    columns = ("strategy", "processes", "epoch, s", "speed-up", "gradients, bytes a step", "weights, bytes a step")
    for column in columns:
        table.add_column(column, justify="left" if column == "strategy" else "right")
    for strategy in STRATEGIES:
        runs = {processes: measure(arguments, strategy, processes) for processes in (1, 2)}
        for processes, run in runs.items():
            speed_up = runs[1]["seconds"] / run["seconds"]
            sizes = (f"{run['reduced']:,}", f"{run['gathered']:,}")
            table.add_row(strategy, str(processes), f"{run['seconds']:.2f}", f"{speed_up:.2f}", *sizes)
    rich.print(table)


if __name__ == "__main__":
    main()
