"""Ways of training side by side: every way with every seed, from one loaded backbone, into one table."""

import copy
import gc
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from beft_lightning.bias import TERM_SYMBOLS
from beft_lightning.bias.heads import head_parameters
from beft_lightning.commands.score_validation import measure_terms, measures_table
from beft_lightning.data import LanguageDataModule
from beft_lightning.errors import BeftError
from beft_lightning.files import write_text_atomically
from beft_lightning.memory import peak_memory, reset_peak_memory
from beft_lightning.tasks.module import LanguageTaskModule, metric_prefix
from beft_lightning.tuning.methods import AUTO, CHANGES_MATRICES, RANDOM, check_options, check_ways, tuned_terms

#: The way that trains nothing.
ZERO_SHOT = "zero_shot"
#: Learning rates of ways that the rate for biases does not suit; full fine-tuning's is the published one.
RATES: Mapping[str, float] = {"full": 1e-5}


@dataclass(frozen=True)
class Run:
    """What came of one way with one seed.

    Args:
        tune: What was trained.
        seed: Seed of the run: new head, dropout, and unless the data has a seed of its own, subset and order.
        learning_rate: The learning rate at the start; 0 if nothing was trained.
        last: Metrics of the reported splits after the last epoch.
        best: The same after the epoch with the best development metric; ``None`` without a development set.
        best_epoch: That epoch, counted from 1.
        history: Value of the main metric in each validation, on the development set if there is one.
        trained_parameters: Number of values trained, head included.
        total_parameters: Number of values of the model.
        seconds: Wall-clock time of the fit, evaluation included.
        peak_memory: Most bytes of GPU memory, or of the process's memory on CPU; ``None`` where it cannot be told.
        options: The way's ``tune_options``, as far as they were asked for.
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
    options: dict[str, Any] = field(default_factory=dict)


class Comparison:
    """Train a module in several ways, and keep each result in a file of its own.

    A run's result is that of ``fit`` with the same configuration, way, learning rate, options and seed; ways that draw
    something draw it with the run's seed. Data with a seed of its own keeps it in all runs. Runs that have their file
    are not repeated, so an interrupted comparison goes on where it stopped.

    Args:
        module: A module that has not loaded its backbone yet.
        data: The data.
        make_trainer: Makes a fresh trainer, given callbacks.
        folder: Where results are kept.
        description: The configuration as text; results of another one in ``folder`` are refused.
        rates: Learning rates of single ways; by default :data:`RATES`, and the module's own for all others.
        options: ``tune_options`` of single ways; the module's own for all others.

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
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.module = module
        self.data = data
        self.make_trainer = make_trainer
        self.folder = folder
        self.rates = {**RATES, **(rates or {})}
        self.options = options or {}
        task = module.task
        split, metric = task.validation_splits[0], task.metrics[0]
        #: Name of the metric that decides on the best epoch.
        self.monitor = f"{metric_prefix('val', split)}{metric}"
        self.description = description
        self._record = folder / "config.yaml"
        if self._record.exists() and self._record.read_text(encoding="utf-8") != description:
            raise BeftError(
                f"{folder} holds results of another configuration, in {self._record.name}: give another --out, or go "
                "back to that configuration to add to its results."
            )
        if module.optimizer is not None and rates:
            raise BeftError("rates belong to the default optimizer: leave out one of model.optimizer and rates.")

    def run(self, ways: Sequence[str], seeds: Sequence[int]) -> list[Run]:
        """All results, making those that are missing.

        Args:
            ways: Values of ``tune``, or ``zero_shot``.
            seeds: Seeds of the runs.

        Raises:
            BeftError: If there is nothing to do, a way is unknown, or zero-shot makes no sense for the task.
        """
        ways = [",".join(tuned_terms(way)) for way in ways]
        self._check(ways, seeds)
        results = []
        for seed in seeds:
            loaded: tuple[LanguageTaskModule, LanguageDataModule] | None = None
            for way in ways:
                path = self.folder / "runs" / f"{way.replace(',', '+')}-seed{seed}.json"
                if not path.exists():
                    pristine, data = loaded = loaded or (self._load(seed), self.data.reseeded(seed))
                    assert pristine.model is not None
                    check_ways(pristine.model, [way for way in ways if way != ZERO_SHOT])
                    with isolate_rng():
                        variant = _variant(pristine, way, self._rate(way), self._options(way), seed)
                        run = self._train(variant, data, way, seed)
                    write_text_atomically(self._record, self.description)
                    write_text_atomically(path, json.dumps(asdict(run), indent=2) + "\n")
                results.append(self._read(path))
                rank_zero_info(f"{way}, seed {seed}: {results[-1].last}")
        return results

    def results(self) -> list[Run]:
        """All results in the folder, also those of earlier calls: by seed, and in the order they were made."""
        paths = sorted((self.folder / "runs").glob("*-seed*.json"), key=lambda path: path.stat().st_mtime)
        runs = [Run(**json.loads(path.read_text(encoding="utf-8"))) for path in paths if "measures" not in path.name]
        return sorted(runs, key=lambda run: run.seed)

    def _read(self, path: Path) -> Run:
        run = Run(**json.loads(path.read_text(encoding="utf-8")))
        rate = self._rate(run.tune)
        if run.trained_parameters and self.module.optimizer is None and run.learning_rate != rate:
            raise BeftError(
                f"{path}: made with learning rate {run.learning_rate:g}, and {rate:g} is asked for: give another "
                "--out, or remove that file to make it again."
            )
        if run.options != (options := self._options(run.tune)):
            raise BeftError(
                f"{path}: made with options {json.dumps(run.options)}, and {json.dumps(options)} is asked for: give "
                "another --out, or remove that file to make it again."
            )
        return run

    def _rate(self, way: str) -> float:
        return self.rates.get(way, self.module.learning_rate)

    def _options(self, way: str) -> dict[str, Any]:
        return dict(self.options.get(way, self.module.tune_options or {}))

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
        for name, named in (("rates", self.rates.keys() - RATES), ("options", self.options.keys())):
            if strange := named - {*ways}:
                raise BeftError(
                    f"{name} name {sorted(strange)[0]!r}, which is not compared; there are: {', '.join(ways)}."
                )
        for way in ways:
            if way != ZERO_SHOT:
                check_options(way, self._options(way))
        if AUTO in ways:
            raise BeftError("compare trains each way that it is given: name the terms instead of 'auto'.")
        if ZERO_SHOT in ways and self.module.task.adds_head:
            raise BeftError(f"{self.module.task.name} is learnt with a new head, so there is no zero-shot result.")

    def _load(self, seed: int) -> LanguageTaskModule:
        """The pretrained model as ``fit`` finds it with this seed. A new head is random, so it is loaded anew."""
        seed_everything(seed, verbose=False)
        if self.module.model is None or self.module.task.adds_head or self.module.random_init:
            self.module.model, self.module.tune = None, AUTO
            self.module.configure_model()
        return self.module

    def _train(self, module: LanguageTaskModule, data: LanguageDataModule, way: str, seed: int) -> Run:
        gc.collect()  # The run before has left cycles, whose memory is not this run's.
        if way != ZERO_SHOT:
            module.set_up_tuning()
        progress = _Progress(self.monitor, keep=data.task.dev)
        trainer = self.make_trainer([progress])
        device = trainer.strategy.root_device
        reset_peak_memory(device)
        start = time.perf_counter()
        if way != ZERO_SHOT:
            trainer.fit(module, datamodule=data)
        seconds, peak = time.perf_counter() - start, peak_memory(device)
        rate = trainer.optimizers[0].defaults["lr"] if way != ZERO_SHOT else 0.0
        last = _reported(trainer, module, data)
        best = None
        if progress.best:
            module.load_state_dict(progress.best, strict=False)
            best = _reported(trainer, module, data)
        parameters = list(module.parameters())
        return Run(
            tune=way,
            seed=seed,
            learning_rate=rate,
            last=last,
            best=best,
            best_epoch=progress.best_epoch if best else None,
            history=progress.history,
            trained_parameters=sum(p.numel() for p in parameters if p.requires_grad) if way != ZERO_SHOT else 0,
            total_parameters=sum(p.numel() for p in parameters),
            seconds=seconds,
            peak_memory=peak,
            options=self._options(way),
        )


class _Progress(Callback):
    """Note the main metric of each validation, and keep what was trained at its best."""

    def __init__(self, monitor: str, *, keep: bool) -> None:
        self.monitor = monitor
        self.keep = keep
        self.history: list[float] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the metric; the check before the first epoch does not count."""
        if trainer.sanity_checking:
            return
        value = float(trainer.callback_metrics[self.monitor])
        if self.keep and value > max(self.history, default=-math.inf):
            trained = [name for name, parameter in pl_module.named_parameters() if parameter.requires_grad]
            state = pl_module.state_dict()
            self.best = {name: state[name].detach().cpu().clone() for name in trained}
            self.best_epoch = trainer.current_epoch + 1
        self.history.append(value)


def _variant(
    pristine: LanguageTaskModule, way: str, learning_rate: float, options: Mapping[str, Any], seed: int
) -> LanguageTaskModule:
    """A copy to train in one way. It shares the matrices if that way leaves them as they are."""
    shared: dict[int, Any] = {}
    assert pristine.model is not None
    if way not in CHANGES_MATRICES:
        head = set(head_parameters(pristine.model))
        matrices = [p for name, p in pristine.model.named_parameters() if p.dim() > 1 and name not in head]
        shared = {id(matrix): matrix for matrix in matrices}
    module = copy.deepcopy(pristine, shared)
    module.tune = way
    module.learning_rate = learning_rate
    # The spread over seeds is that of what is drawn, too.
    module.tune_options = {**({"seed": seed} if way in RANDOM else {}), **options}
    return module


def _reported(trainer: Trainer, module: LanguageTaskModule, data: LanguageDataModule) -> dict[str, float]:
    """Metrics of the reported splits, without the stage's prefix."""
    merged: dict[str, float] = {}
    for result in trainer.test(module, datamodule=data, verbose=False):
        merged.update({name.removeprefix("test_"): float(value) for name, value in result.items()})
    return merged
