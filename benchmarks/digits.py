"""Bias tuning beyond text: a small ViT that knows five digits learns the other five from 10, 50 and 200 images.

    python -m benchmarks.digits --out DIR [--seeds 5] [--sizes 10 50 200] [--ways value query ...] [--steps 100]

The images are scikit-learn's 1,797 handwritten digits of 8 x 8 pixels. The backbone is trained from random weights on
the digits 0 to 4. Of the digits 5 to 9, 60 images each are there to train on, 40 to choose the learning rate, and the
rest, about 400 in all, to report. A way's rate is chosen by its mean over 50 images of each of three seeds that are not
reported: from 0.03 on, larger and smaller ones are tried until the best has a worse one on either side; ties go to the
smaller one. All ways see the same images in the same order, batches of 16, for the same number of steps.

Each run leaves a file below DIR, so that a study that was stopped goes on where it was. The table is written again
after each size.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Trainer, seed_everything
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import ViTConfig

from beft_lightning import LanguageTaskModule
from beft_lightning.data import ImageTable
from beft_lightning.files import write_text_atomically
from beft_lightning.processors import make_processor

#: What is trained -> how tables call it.
WAYS: Mapping[str, str] = {
    "head": "head only",
    "key": "key bias",
    "query": "query bias",
    "value": "value bias",
    "attention_output": "attention output bias",
    "all": "all biases",
    "lora": "LoRA",
    "full": "full",
}
#: Learning rates, from the largest down.
RATES = (10.0, 3.0, 1.0, 3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5)
#: The first rate to try.
FIRST = 3e-2
SIZES = (10, 50, 200)
#: Images of each new digit to train on, and to choose rates by.
POOL, CHOICE = 60, 40
#: The size, and the seeds, with which rates are chosen.
CHOSEN_WITH, CHOSEN_BY = 50, (0, 101, 102)
#: The model's inputs, ``labels`` and ``id`` of several images.
Batch = dict[str, Tensor]
_QUIET: Mapping[str, Any] = {"accelerator": "cpu", "logger": False} | dict.fromkeys(
    ("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
)


@dataclass(frozen=True)
class Run:
    """One fit.

    Args:
        tune: What is trained.
        size: Number of images.
        seed: Seed of their draw, of the new head and of the order.
        rate: Learning rate.
    """

    tune: str
    size: int
    seed: int
    rate: float

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.tune}_{self.size}_{self.seed}_{self.rate:g}"


def write_images(folder: Path, known: range = range(5)) -> None:
    """Write all digits as images, and tables of those known and of the new ones to choose rates by and to report."""
    digits = load_digits()
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        name = f"{number}.png"
        Image.fromarray((pixels * 255 / 16).round().astype(np.uint8)).save(folder / name)
        rows.append({"image": name, "label": int(digit)})
    table = pd.DataFrame(rows).sample(frac=1, random_state=0)
    is_known = table.label.isin(known)
    new = table[~is_known]
    place = new.groupby("label").cumcount()
    parts = {
        "known": table[is_known],
        "pool": new[place < POOL],
        "choice": new[(place >= POOL) & (place < POOL + CHOICE)],
        "report": new[place >= POOL + CHOICE],
    }
    for name, part in parts.items():
        part.to_csv(folder / f"{name}.csv", index=False)


def pretrain(folder: Path, images: Path, epochs: int) -> None:
    """Train a backbone on the known digits, and save it with its processor and its accuracy on a tenth of them."""
    seed_everything(0, verbose=False)
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
    )
    config.save_pretrained(folder / "config")
    start = str(folder / "config")
    data = ImageTable(start, images / "known.csv", batch_size=32, seed=0, random_init=True)
    module = LanguageTaskModule(start, data.task, tune="full", random_init=True, learning_rate=1e-3)
    trainer = Trainer(max_epochs=epochs, gradient_clip_val=1.0, limit_val_batches=0, **_QUIET)
    trainer.fit(module, datamodule=data)
    (metrics,) = Trainer(**_QUIET).validate(module, datamodule=data, verbose=False)
    model: Any = module.model
    model.vit.save_pretrained(folder)
    make_processor("image_classification", start).save_pretrained(folder)
    write_text_atomically(folder / "known.json", json.dumps(metrics))


def batches_of(examples: Batch, size: int, steps: int, seed: int) -> list[Batch]:
    """Return training batches: all examples in a new order, then again, until there are enough."""
    random = np.random.RandomState(seed)
    count = len(examples["id"])
    order: list[int] = []
    batches = []
    for _ in range(steps):
        if len(order) < size:
            order += random.permutation(count).tolist()
        chosen, order = order[:size], order[size:]
        batches.append({name: values[chosen] for name, values in examples.items()})
    return batches


def _loader(batches: Any) -> DataLoader[Any]:
    return DataLoader(batches, batch_size=None)  # a list has what a data set needs


class Study:
    """All runs of a folder.

    Args:
        out: The folder.
        steps: Number of training steps of each run.
        epochs: Number of epochs on the known digits.
        known: The known digits.
    """

    def __init__(self, out: Path, steps: int = 100, epochs: int = 40, known: range = range(5)) -> None:
        self.out, self.steps = out, steps
        self.backbone = str(out / "backbone")
        images = out / "images"
        if not (images / "report.csv").is_file():
            write_images(images, known)
        if not (out / "backbone" / "known.json").is_file():
            pretrain(out / "backbone", images, epochs)
        self.data = ImageTable(
            self.backbone,
            train=images / "pool.csv",
            validation=images / "choice.csv",
            test=images / "report.csv",
            batch_size=5 * POOL,
            eval_batch_size=512,
            seed=0,
        )
        for stage in ("fit", "test"):
            self.data.setup(stage)
        #: All images of a split as one batch, so that no run reads them again.
        self.examples: dict[str, Batch] = {
            "pool": next(iter(self.data.train_dataloader())),
            "choice": next(iter(self.data.val_dataloader()[0])),
            "report": next(iter(self.data.test_dataloader()[0])),
        }

    def draw(self, size: int, seed: int) -> Batch:
        """Return a draw of training images, as many of each digit."""
        pool = self.examples["pool"]
        order = pool["id"].argsort()[np.random.RandomState(seed).permutation(len(pool["id"]))]
        labels = pool["labels"][order]
        chosen = torch.cat([order[labels == label][: size // 5] for label in labels.unique()])
        return {name: values[chosen] for name, values in pool.items()}

    def fit(self, run: Run, reported: str) -> dict[str, Any]:
        """Fit, and return the accuracy on a split and the number of trained parameters."""
        seed_everything(run.seed, verbose=False)
        module = LanguageTaskModule(self.backbone, self.data.task, tune=run.tune, learning_rate=run.rate)
        trainer = Trainer(max_epochs=1, gradient_clip_val=1.0, **_QUIET)
        batches = batches_of(self.draw(run.size, run.seed), min(run.size, 16), self.steps, run.seed)
        trainer.fit(module, _loader(batches))
        (metrics,) = Trainer(**_QUIET).validate(module, _loader([self.examples[reported]]), verbose=False)
        trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
        return {"accuracy": metrics["val_accuracy"], "trained": trained, "steps": self.steps}

    def result(self, run: Run, reported: str = "report") -> dict[str, Any]:
        """Return the result of a run, from its file if there is one."""
        path = self.out / reported / f"{run.name}.json"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            write_text_atomically(path, json.dumps(self.fit(run, reported)))
        return dict(json.loads(path.read_text()))

    def rate(self, tune: str) -> float:
        """Return the learning rate with the best accuracy on the images to choose by, better than both beside it."""

        def accuracy(place: int) -> float:
            runs = [Run(tune, CHOSEN_WITH, seed, RATES[place]) for seed in CHOSEN_BY]
            return statistics.mean(self.result(run, "choice")["accuracy"] for run in runs)

        return RATES[climb(accuracy, RATES.index(FIRST), len(RATES))]

    def row(self, tune: str, sizes: Sequence[int], seeds: int) -> dict[str, Any]:
        """Return the rate, the number of trained values, and the accuracies by size of a way."""
        rate = self.rate(tune)
        found = {size: [self.result(Run(tune, size, 1 + i, rate)) for i in range(seeds)] for size in sizes}
        accuracies = {size: [result["accuracy"] for result in results] for size, results in found.items()}
        return {"tune": tune, "rate": rate, "trained": found[sizes[0]][0]["trained"], "accuracies": accuracies}


def climb(value: Callable[[int], float], start: int, count: int) -> int:
    """Return the place of a maximum of ``value``, looking only at places on the way to it and beside it.

    Args:
        value: Value at a place.
        start: The first place.
        count: Number of places; of equal values the one at the higher place wins.

    Raises:
        ValueError: If the maximum is the first or the last place, beyond which there may be more.
    """
    best = start
    while True:
        better = max((best - 1, best, best + 1), key=lambda place: (value(place), place))
        if better in (0, count - 1):
            raise ValueError(f"the best place is the last one on its side, {better}: more are needed")
        if better == best:
            return best
        best = better


def markdown(rows: Sequence[Mapping[str, Any]], sizes: Sequence[int]) -> str:
    """Return a table of mean and standard deviation of the accuracy, in percent."""
    lines = [
        f"| trained | parameters | rate | {' | '.join(f'{size} images' for size in sizes)} |",
        "|---" * (3 + len(sizes)) + "|",
    ]
    for row in rows:
        cells = [_mean_and_deviation(row["accuracies"][size]) for size in sizes]
        lines.append(f"| {WAYS[row['tune']]} | {row['trained']:,} | {row['rate']:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean_and_deviation(values: Sequence[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.1f} ± {100 * deviation:.1f}"


def plot(rows: Sequence[Mapping[str, Any]], sizes: Sequence[int]) -> Figure:
    """Draw accuracy against the number of images, a line for each way."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        values = [row["accuracies"][size] for size in sizes]
        means = [100 * statistics.mean(each) for each in values]
        deviations = [100 * (statistics.stdev(each) if len(each) > 1 else 0) for each in values]
        axes.errorbar(sizes, means, yerr=deviations, label=WAYS[row["tune"]], marker="o", capsize=3)
    axes.axhline(20, color="grey", linestyle=":", label="guessing")
    axes.set(xscale="log", xlabel="images to learn from", ylabel="accuracy on new digits, %")
    axes.set_xticks(sizes, [str(size) for size in sizes], minor=False)
    axes.minorticks_off()
    axes.legend(fontsize="small", ncols=2)
    return figure


def picture() -> Figure:
    """Draw three images of each digit: the known ones above, the new ones below."""
    digits = load_digits()
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    grid = figure.subplots(2, 15)
    for axes, digit, copy in zip(grid.flat, np.repeat(range(10), 3), np.tile(range(3), 10), strict=True):
        axes.imshow(digits.images[np.flatnonzero(digits.target == digit)[copy]], cmap="gray_r")
        axes.set(xticks=[], yticks=[])
    grid[0, 0].set_ylabel("known")
    grid[1, 0].set_ylabel("new")
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS])
    parser.add_argument("--steps", type=int, default=100, help="training steps of each run")
    parser.add_argument("--epochs", type=int, default=40, help="epochs on the known digits")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    study = Study(options.out, options.steps, options.epochs)
    print(f"Known digits: {json.loads((options.out / 'backbone' / 'known.json').read_text())['val_accuracy']:.3f}")
    picture().savefig(options.out / "digits.png", dpi=120)
    for count in range(1, 1 + len(options.sizes)):
        sizes = options.sizes[:count]
        rows = [study.row(tune, sizes, options.seeds) for tune in options.ways]
        table = markdown(rows, sizes)
        write_text_atomically(options.out / "results.md", table + "\n")
        plot(rows, sizes).savefig(options.out / "accuracy.png", dpi=120)
        print(table)


if __name__ == "__main__":
    main()
