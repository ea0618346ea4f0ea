"""Ways of training side by side: every way with every seed, from one loaded backbone, into one table."""

import copy
import gc
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from beft_lightning.bias import TERM_SYMBOLS, head_parameters
from beft_lightning.data import LanguageDataModule
from beft_lightning.data.prompt_task import PromptTask
from beft_lightning.errors import BeftError
from beft_lightning.files import write_text_atomically
from beft_lightning.tasks.module import LanguageTaskModule, metric_prefix
from beft_lightning.tasks.tuning import AUTO, CHANGES_MATRICES
from beft_lightning.term_measures import measure_terms, measures_table

#: The way that trains nothing.
ZERO_SHOT = "zero_shot"
#: Learning rates of ways that the rate for biases does not suit; full fine-tuning's is the published one.
RATES: Mapping[str, float] = {"full": 1e-5}


@dataclass(frozen=True)
class Run:
    """What came of one way with one seed.

    Args:
        tune: What was trained.
        seed: Seed of the run: subset, order, new head, dropout.
        learning_rate: The learning rate.
        last: Metrics of the reported splits after the last epoch.
        best: The same after the epoch with the best development metric; ``None`` without a development set.
        best_epoch: That epoch, counted from 1.
        history: Value of the main metric after each epoch, on the development set if there is one.
        trained_parameters: Number of values trained, head included.
        total_parameters: Number of values of the model.
        seconds: Wall-clock time of the fit, evaluation included.
        peak_memory: Most bytes of GPU memory, or of the process's memory on CPU; ``None`` where it cannot be told.
    """

    tune: str
    seed: int
    learning_rate: float
    last: dict[str, float]
    best: dict[str, float] | None
    best_epoch: int | None
    history: list[float]
    trained_parameters: int
    total_parameters: int
    seconds: float
    peak_memory: int | None


class Comparison:
    """Train a module in several ways, and keep each result in a file of its own.

    A run's result is that of ``fit`` with the same configuration, way and seed. Runs that have their file are not
    repeated, so an interrupted comparison goes on where it stopped.

    Args:
        module: A module that has not loaded its backbone yet.
        data: The data.
        make_trainer: Makes a fresh trainer, given callbacks.
        folder: Where results are kept.
        description: The configuration as text; results of another one in ``folder`` are refused.
        rates: Learning rates of single ways; by default :data:`RATES`, and the module's own for all others.

    Raises:
        BeftError: If ``folder`` holds results of another configuration.
    """

    def __init__(
        self,
        module: LanguageTaskModule,
        data: LanguageDataModule,
        make_trainer: Callable[[list[Callback]], Trainer],
        folder: Path,
        description: str,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        self.module = module
        self.data = data
        self.make_trainer = make_trainer
        self.folder = folder
        self.rates = {**RATES, **(rates or {})}
        task = module.task
        split, metric = task.validation_splits[0], task.metrics[0]
        #: Name of the metric that decides on the best epoch.
        self.monitor = f"{metric_prefix('val', split)}{metric}"
        record = folder / "config.yaml"
        if record.exists() and record.read_text(encoding="utf-8") != description:
            raise BeftError(
                f"{folder} holds results of another configuration, in {record.name}: give another --out, or go back to "
                "that configuration to add to its results."
            )
        write_text_atomically(record, description)

    def run(self, ways: Sequence[str], seeds: Sequence[int]) -> list[Run]:
        """All results, making those that are missing.

        Args:
            ways: Values of ``tune``, or ``zero_shot``.
            seeds: Seeds of the runs.

        Raises:
            BeftError: If there is nothing to do, a way is unknown, or zero-shot makes no sense for the task.
        """
        self._check(ways, seeds)
        results = []
        for seed in seeds:
            pristine: LanguageTaskModule | None = None
            for way in ways:
                path = self.folder / "runs" / f"{way.replace(',', '+')}-seed{seed}.json"
                if not path.exists():
                    pristine = pristine or self._load(seed)
                    with isolate_rng():
                        run = self._train(_variant(pristine, way, self.rates.get(way)), way, seed)
                    write_text_atomically(path, json.dumps(asdict(run), indent=2) + "\n")
                results.append(Run(**json.loads(path.read_text(encoding="utf-8"))))
                rank_zero_info(f"{way}, seed {seed}: {results[-1].last}")
        return results

    def measure(self, runs: Sequence[Run]) -> str:
        """Which measure would have told the terms' order: a table in Markdown.

        Args:
            runs: All runs. With fewer than three single terms among them there is nothing to correlate.
        """
        found: dict[str, list[float]] = {}
        for run in runs:
            if run.tune in TERM_SYMBOLS:
                found.setdefault(run.tune, []).append(run.last[next(iter(run.last))])
        if len(found) < 3:
            return ""
        accuracies = {term: sum(values) / len(values) for term, values in found.items()}
        seed = runs[0].seed
        path = self.folder / "runs" / f"measures-seed{seed}-{'+'.join(found)}.json"
        if not path.exists():
            with isolate_rng():
                data = self.data.reseeded(seed)
                measures = measure_terms(self._load(seed), data, self.make_trainer, list(found))
            write_text_atomically(path, json.dumps(measures, indent=2) + "\n")
        measures = json.loads(path.read_text(encoding="utf-8"))
        metric = next(iter(runs[0].last))
        title = f"What would have told the order of the terms (seed {seed}, 32 batches):\n\n"
        return title + measures_table(measures, accuracies, metric)

    def _check(self, ways: Sequence[str], seeds: Sequence[int]) -> None:
        if not ways or not seeds or len(set(ways)) < len(ways) or len(set(seeds)) < len(seeds):
            raise BeftError("compare needs at least one way to train and one seed, each named once.")
        if AUTO in ways:
            raise BeftError("compare trains each way that it is given: name the terms instead of 'auto'.")
        if ZERO_SHOT in ways and not isinstance(self.module.task, PromptTask):
            raise BeftError(f"{self.module.task.name} is learnt with a new head, so there is no zero-shot result.")

    def _load(self, seed: int) -> LanguageTaskModule:
        """The pretrained model as ``fit`` finds it with this seed. A new head is random, so it is loaded anew."""
        seed_everything(seed, verbose=False)
        if self.module.model is None or not isinstance(self.module.task, PromptTask) or self.module.random_init:
            self.module.model, self.module.tune = None, AUTO
            self.module.configure_model()
        return self.module

    def _train(self, module: LanguageTaskModule, way: str, seed: int) -> Run:
        gc.collect()  # The run before has left cycles, whose memory is not this run's.
        if way != ZERO_SHOT:
            module.set_up_tuning()
        data = self.data.reseeded(seed)
        progress = _Progress(self.monitor)
        trainer = self.make_trainer([progress])
        _reset_peak_memory()
        start = time.perf_counter()
        if way != ZERO_SHOT:
            trainer.fit(module, datamodule=data)
        seconds, peak = time.perf_counter() - start, _peak_memory()
        last = _reported(trainer, module, data)
        best = None
        if data.task.dev and progress.history:
            module.load_state_dict(progress.best, strict=False)
            best = _reported(trainer, module, data)
        parameters = list(module.parameters())
        return Run(
            tune=way,
            seed=seed,
            learning_rate=module.learning_rate,
            last=last,
            best=best,
            best_epoch=progress.best_epoch if best else None,
            history=progress.history,
            trained_parameters=sum(p.numel() for p in parameters if p.requires_grad) if way != ZERO_SHOT else 0,
            total_parameters=sum(p.numel() for p in parameters),
            seconds=seconds,
            peak_memory=peak,
        )


class _Progress(Callback):
    """Note the main metric after each epoch, and keep what was trained at its best."""

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.history: list[float] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the metric; the check before the first epoch does not count."""
        if trainer.sanity_checking:
            return
        value = float(trainer.callback_metrics[self.monitor])
        if not self.history or value > max(self.history):
            trained = {name for name, parameter in pl_module.named_parameters() if parameter.requires_grad}
            state = pl_module.state_dict()
            self.best = {name: state[name].detach().clone() for name in trained}
            self.best_epoch = len(self.history) + 1
        self.history.append(value)


def _variant(pristine: LanguageTaskModule, way: str, learning_rate: float | None) -> LanguageTaskModule:
    """A copy to train in one way. It shares the matrices if that way leaves them as they are."""
    shared: dict[int, Any] = {}
    assert pristine.model is not None
    if way not in CHANGES_MATRICES:
        head = set(head_parameters(pristine.model))
        matrices = [p for name, p in pristine.model.named_parameters() if p.dim() > 1 and name not in head]
        shared = {id(matrix): matrix for matrix in matrices}
    module = copy.deepcopy(pristine, shared)
    module.tune = way
    if learning_rate is not None:
        module.learning_rate = learning_rate
    return module


def _reported(trainer: Trainer, module: LanguageTaskModule, data: LanguageDataModule) -> dict[str, float]:
    """Metrics of the reported splits, without the stage's prefix."""
    merged: dict[str, float] = {}
    for result in trainer.test(module, datamodule=data, verbose=False):
        merged.update({name.removeprefix("test_"): float(value) for name, value in result.items()})
    return merged


def _reset_peak_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    # Linux forgets the process's high-water mark when told 5.
    watermark = Path("/proc/self/clear_refs")
    if watermark.exists():
        watermark.write_text("5")


def _peak_memory() -> int | None:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024
