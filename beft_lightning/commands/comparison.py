"""Training with several methods and seeds, from one loaded backbone."""

import gc
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng

from beft_lightning.bias import TERM_SYMBOLS
from beft_lightning.callbacks.rate_race import RateRace
from beft_lightning.commands.best_epoch import BestEpoch
from beft_lightning.commands.compared_method import ComparedMethod
from beft_lightning.commands.run_folder import RunFolder
from beft_lightning.commands.score_validation import measure_terms, measures_table
from beft_lightning.compared_run import Run, read_json
from beft_lightning.data import LanguageDataModule
from beft_lightning.errors import BeftError
from beft_lightning.files import write_text_atomically
from beft_lightning.memory import peak_memory, reset_peak_memory
from beft_lightning.tasks.metrics import metric_prefix
from beft_lightning.tasks.module import LanguageTaskModule
from beft_lightning.tuning import AUTO, tuned_terms


class Comparison:
    """Train a module with several methods and seeds, and keep each result in a file of its own.

    A run's result is that of ``fit`` with the same configuration, method, learning rate, options and seed; methods
    that draw what they train draw it with the run's seed. Data with a seed of its own keeps it in all runs. Runs that
    have their file are not repeated, so an interrupted comparison goes on where it stopped.

    Args:
        module: A module that has not loaded its backbone yet.
        data: The data.
        make_trainer: Makes a fresh trainer, given callbacks.
        folder: Where results are kept.
        configuration: The configuration as text.
        rates: Learning rates of single methods, by default a method's own, or else the module's; or ``auto``: a short
            race finds the rate of each run.
        options: ``tune_options`` of single methods; the module's own for all others.

    Raises:
        BeftError: If ``folder`` holds results of another configuration.
    """

    def __init__(
        self,
        module: LanguageTaskModule,
        data: LanguageDataModule,
        make_trainer: Callable[[list[Callback]], Trainer],
        folder: Path,
        configuration: str,
        rates: Mapping[str, float] | Literal["auto"] | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        if module.optimizer is not None and rates and rates != AUTO:
            raise BeftError("rates belong to the default optimizer: leave out one of model.optimizer and rates.")
        self.module = module
        self.data = data
        self.make_trainer = make_trainer
        self.folder = RunFolder(folder, configuration)
        self.races_rates = rates == AUTO
        self.rates: Mapping[str, float] = rates if isinstance(rates, Mapping) else {}
        self.options = options or {}
        self.default_options = module.asked_options

    def run(self, tunes: Sequence[str], seeds: Sequence[int]) -> list[Run]:
        """Return the results of all methods with all seeds, and train those that are missing.

        Args:
            tunes: Values of ``tune``, or ``zero_shot``.
            seeds: Seeds of the runs.

        Raises:
            BeftError: If there is nothing to do, a method is unknown or cannot train this model, or the folder's
                results were made with other settings.
        """
        methods = [self._method(",".join(tuned_terms(tune))) for tune in tunes]
        self._check(methods, seeds)
        results = []
        for seed in seeds:
            loaded: tuple[LanguageTaskModule, LanguageDataModule] | None = None
            for method in methods:
                run = self.folder.read(method.tune, seed)
                if run is None:
                    if loaded is None:
                        loaded = self._load(seed), self.data.reseeded(seed)
                        for each in methods:
                            each.check_model(loaded[0])
                        self.folder.claim()
                    run = self._train(method, *loaded, seed)
                    self.folder.add(run)
                results.append(run)
                metrics = ", ".join(f"{name} {value:.4f}" for name, value in run.last.items())
                rank_zero_info(f"{method.tune}, seed {seed}: {metrics}")
        return results

    def results(self) -> list[Run]:
        """Read all results in the folder, also those of earlier calls: by seed, then by the time they were made."""
        return self.folder.runs()

    def measure(self, runs: Sequence[Run]) -> str:
        """Compare measures of the terms, taken before training, with the terms' results.

        Args:
            runs: All runs.

        Returns:
            A table in Markdown; empty with fewer than three single terms among the runs, which give no correlation.
        """
        found: dict[str, list[float]] = {}
        for run in runs:
            if run.tune in TERM_SYMBOLS and not run.diverged:
                found.setdefault(run.tune, []).append(run.last[next(iter(run.last))])
        if len(found) < 3:
            return ""
        accuracies = {term: sum(values) / len(values) for term, values in found.items()}
        seed = runs[0].seed
        path = self.folder.measures_path(list(found), seed)
        if not path.exists():
            with isolate_rng():
                data = self.data.reseeded(seed)
                measures = measure_terms(self._load(seed), data, self.make_trainer, list(found))
            write_text_atomically(path, json.dumps(measures, indent=2) + "\n")
        title = f"Measures of the terms before training (seed {seed}, 32 batches), and the order of the results:\n\n"
        return title + measures_table(read_json(path), accuracies, next(iter(runs[0].last)))

    def _method(self, tune: str) -> ComparedMethod:
        method = ComparedMethod(tune, options=dict(self.options.get(tune, self.default_options)))
        if self.module.optimizer is not None or self.races_rates:
            return method
        rate = method.own_learning_rate or self.module.learning_rate
        return replace(method, learning_rate=self.rates.get(tune, rate))

    def _check(self, methods: Sequence[ComparedMethod], seeds: Sequence[int]) -> None:
        """Check what is asked for, before anything is loaded."""
        tunes = [method.tune for method in methods]
        if not tunes or not seeds or len(set(tunes)) < len(tunes) or len(set(seeds)) < len(seeds):
            raise BeftError("compare needs at least one method and at least one seed, each named once.")
        for name, named in (("rates", self.rates), ("options", self.options)):
            if unknown := sorted(named.keys() - {*tunes}):
                raise BeftError(f"{name} name {unknown[0]!r}, which is not compared; there are: {', '.join(tunes)}.")
        for method in methods:
            method.check()
            if not method.trains and self.module.task.adds_head:
                raise BeftError(f"{self.module.task.name} is learnt with a new head, so there is no zero-shot result.")
            self.folder.check_settings(method.tune, method.learning_rate, method.options, raced=self.races_rates)

    def _load(self, seed: int) -> LanguageTaskModule:
        """Return the pretrained model as ``fit`` finds it with this seed; random values are drawn anew."""
        seed_everything(seed, verbose=False)
        if self.module.model is None or self.module.task.adds_head or self.module.random_init:
            self.module.model, self.module.method = None, None
            self.module.configure_model()
        return self.module

    def _train(
        self, method: ComparedMethod, pretrained: LanguageTaskModule, data: LanguageDataModule, seed: int
    ) -> Run:
        """Train a copy of the pretrained module, and evaluate it."""
        gc.collect()  # The memory of the run before, which cycles keep, does not count here.
        split, metric = self.module.task.validation_splits[0], self.module.task.metrics[0]
        with isolate_rng():
            module = method.copy_of(pretrained, seed)
            watch = BestEpoch(f"{metric_prefix('val', split)}{metric}", keep=data.task.dev)
            race = [RateRace()] if self.races_rates and method.trains else []
            trainer = self.make_trainer([watch, *race])
            device = trainer.strategy.root_device
            reset_peak_memory(device)
            start = time.perf_counter()
            if method.trains:
                trainer.fit(module, datamodule=data)
            seconds, peak = time.perf_counter() - start, peak_memory(device)
            rate = trainer.optimizers[0].defaults["lr"] if method.trains else 0.0
            trained = [p for p in module.parameters() if p.requires_grad] if method.trains else []
            finite = all(bool(parameter.isfinite().all()) for parameter in trained)
            last = _reported(trainer, module, data)
            best = None
            if watch.parameters:
                module.load_state_dict(watch.parameters, strict=False)
                best = _reported(trainer, module, data)
        return Run(
            tune=method.tune,
            seed=seed,
            learning_rate=rate,
            last=last,
            best=best,
            best_epoch=watch.epoch,
            history=watch.history,
            trained_parameters=sum(parameter.numel() for parameter in trained),
            total_parameters=sum(parameter.numel() for parameter in module.parameters()),
            seconds=seconds,
            peak_memory=peak,
            options=method.options,
            configuration=self.folder.digest,
            raced=bool(race),
            diverged=not (finite and all(map(math.isfinite, last.values()))),
        )


def _reported(trainer: Trainer, module: LanguageTaskModule, data: LanguageDataModule) -> dict[str, float]:
    """Return the metrics of the reported splits, without the stage's prefix."""
    merged: dict[str, float] = {}
    for result in trainer.test(module, datamodule=data, verbose=False):
        merged.update({name.removeprefix("test_"): float(value) for name, value in result.items()})
    return merged
