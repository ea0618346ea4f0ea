"""A step of bias tuning against the forward pass alone, on a model that fills a machine.

    python -m benchmarks.large --data-dir DATA --backbone FOLDER [--dtype nf4] [--activation-checkpointing]

FOLDER holds a causal language model, for example OPT-6.7B. Its value biases are trained on COPA, in fp32 over weights
in bf16 or nf4; the options of an example share their prompt. Prints seconds of both, their ratio and the peak of this
process's memory. What is mapped from the checkpoint's files counts as resident; anonymous memory is what it holds
beside that.
"""

import argparse
import statistics
import threading
import time
from pathlib import Path

import rich
import torch
from lightning.pytorch import seed_everything

from beft_lightning import LanguageTaskModule
from beft_lightning.data import SuperGlue
from beft_lightning.scoring.reference_adam import ReferenceAdam
from benchmarks.encoder import seconds


class MemoryWatch(threading.Thread):
    """Peaks of this process's memory, in GiB: resident and anonymous (Linux)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks = {"VmRSS": 0.0, "RssAnon": 0.0}

    def run(self) -> None:
        """Look fifty times a second."""
        while True:
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in self.peaks:
                    self.peaks[name] = max(self.peaks[name], int(value.split()[0]) / 2**20)
            time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--dtype", choices=("bfloat16", "nf4"), default="bfloat16")
    parser.add_argument("--activation-checkpointing", action="store_true")
    arguments = parser.parse_args()
    seed_everything(0, verbose=False)
    watch = MemoryWatch()
    watch.start()

    data = SuperGlue(
        arguments.backbone, task="copa", prompt=True, data_dir=arguments.data_dir, batch_size=arguments.batch, seed=0
    )
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    module = LanguageTaskModule(
        arguments.backbone,
        data.task,
        tune="value",
        dtype=arguments.dtype,
        activation_checkpointing=arguments.activation_checkpointing,
    )
    loading = seconds(module.configure_model)
    objective, model = module.objective, module.model
    assert objective is not None
    assert model is not None
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = ReferenceAdam(trained, lr=1e-3)

    def forward() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.dtype == "bfloat16"):
            return objective.loss(model, batch)

    def step() -> None:
        forward().backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    with torch.no_grad():
        forward()
        forwards = [seconds(forward) for _ in range(arguments.steps)]
    steps = [seconds(step) for _ in range(arguments.steps)]
    once, whole = statistics.median(forwards), statistics.median(steps)
    rows, columns = batch["input_ids"].shape
    rich.print(
        f"{rows} x {columns} tokens, {sum(p.numel() for p in trained):,} trained values, loaded in {loading:.0f} s"
    )
    rich.print(f"forward {once:.1f} s, step {whole:.1f} s, ratio {whole / once:.2f}")
    rich.print(f"peak memory: resident {watch.peaks['VmRSS']:.2f} GiB, anonymous {watch.peaks['RssAnon']:.2f} GiB")


if __name__ == "__main__":
    main()
