"""One small file that says what a run did, and the same for the eye."""

import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rich
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from rich.table import Table

from beft_lightning.callbacks.bias_selection import BiasSelectionCallback
from beft_lightning.callbacks.rate_race import rate_race_of
from beft_lightning.callbacks.run_folder import own_path, run_folder
from beft_lightning.callbacks.tracking import log_hyperparameters
from beft_lightning.checkpoint import TRAINED_KEY, checkpoint_file
from beft_lightning.files import from_here, write_text_atomically
from beft_lightning.parameters import numel
from beft_lightning.strategies.adaptation import adapt, release


@dataclass
class _Clock:
    """Wall-clock seconds of a run, and when its parts began."""

    train_start: float = 0.0
    epoch_start: float = 0.0
    validation_start: float = 0.0
    train: float = 0.0
    validation: float = 0.0
    epochs: list[float] = field(default_factory=list)


class RunSummary(Callback):
    """Write ``summary.json`` into the run's folder at the end of fit, validate and test, and print it.

    At the start of a fit, the loggers get what it is made with as hyper-parameters.

    It holds ``metrics`` (the last value of each logged metric), ``selected``, ``trained_parameters`` (the number of
    values that a fit trains, or that the evaluated checkpoint holds as trained; null where there is no checkpoint of
    this package), ``total_parameters``, and ``seconds`` with ``score`` (scoring and races before the fit), ``train``
    (the whole fit loop), ``train_epoch`` (median of an epoch's training part, validation excluded) and ``checkpoint``
    (all writing of checkpoints).
    """

    def __init__(self) -> None:
        self._clock = _Clock()
        self._restored: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start counting."""
        self._clock, self._restored = _Clock(), None
        adapt(trainer.strategy).checkpoint_seconds = 0.0

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the trainer its strategy back."""
        release(trainer.strategy)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Count the trained values of the checkpoint."""
        if TRAINED_KEY in checkpoint:
            self._restored = sum(checkpoint["state_dict"][name].numel() for name in checkpoint[TRAINED_KEY])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the fit is made with."""
        selection = _selection(trainer)
        chosen = {"approach": selection.approach, "selected": ", ".join(selection.selected or ())} if selection else {}
        log_hyperparameters(trainer, pl_module, chosen)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the fit loop."""
        self._clock.train_start = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of an epoch."""
        self._clock.epoch_start, self._clock.validation = time.perf_counter(), 0.0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of a validation, which may lie inside an epoch."""
        self._clock.validation_start = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop it; outside a fit, this is the end of the run."""
        self._clock.validation += time.perf_counter() - self._clock.validation_start
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._finish(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the epoch's training time."""
        self._clock.epochs.append(time.perf_counter() - self._clock.epoch_start - self._clock.validation)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock of the fit loop."""
        self._clock.train = time.perf_counter() - self._clock.train_start

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the fit, and warn if the checkpoint that it went on from had reached its end."""
        if trainer.ckpt_path is not None and not self._clock.train_start:
            rank_zero_warn(
                f"Nothing was trained: {trainer.ckpt_path} has reached epoch {trainer.current_epoch} and step "
                f"{trainer.global_step}, and this fit ends at trainer.max_epochs {trainer.max_epochs} or "
                f"trainer.max_steps {trainer.max_steps} (-1: no limit). Raise them to go on training."
            )
        self._finish(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the test."""
        self._finish(trainer, pl_module)

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = run_folder(trainer)  # Asked on every rank: it is broadcast.
        if not trainer.is_global_zero:
            return
        summary = self.content(trainer, pl_module)
        if folder is not None:
            write_text_atomically(own_path(trainer, folder, "summary.json"), json.dumps(summary, indent=2) + "\n")
        rich.print(_table(summary, trainer))
        for name, path in (("checkpoint", _checkpoint(trainer)), ("files", folder)):
            if path:  # On lines of their own, which nothing breaks: to be copied.
                rich.get_console().print(f"{name}: {from_here(path)}", markup=False, highlight=False, soft_wrap=True)

    def content(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The summary of the run so far."""
        strategy = adapt(trainer.strategy)
        selection, race = _selection(trainer), rate_race_of(trainer)
        fitted = trainer.state.fn == TrainerFn.FITTING
        return {
            # JSON knows no NaN.
            "metrics": {n: v.item() if v.isfinite() else None for n, v in sorted(trainer.callback_metrics.items())},
            "selected": selection.selected if selection else getattr(pl_module, "tune", None),
            # Outside a fit, nothing freezes what a selection has left out.
            "trained_parameters": (
                sum(numel(p) for p in pl_module.parameters() if p.requires_grad) if fitted else self._restored
            ),
            "total_parameters": strategy.total_parameters,
            "seconds": {
                "score": (selection.seconds if selection else 0.0) + (race.seconds if race else 0.0),
                "train": self._clock.train,
                "train_epoch": statistics.median(self._clock.epochs) if self._clock.epochs else 0.0,
                "checkpoint": strategy.checkpoint_seconds,
            },
        }


def _selection(trainer: Trainer) -> BiasSelectionCallback | None:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, BiasSelectionCallback)), None)


def _checkpoint(trainer: Trainer) -> str:
    """Where a fit has left its last checkpoint; empty if nowhere."""
    callback = trainer.checkpoint_callback
    if trainer.state.fn != TrainerFn.FITTING or not isinstance(callback, ModelCheckpoint):
        return ""
    return callback.last_model_path


def _table(summary: dict[str, Any], trainer: Trainer) -> Table:
    assert trainer.state.fn is not None
    table = Table(title=f"{trainer.state.fn.value} finished", show_header=False)
    for name, value in summary["metrics"].items():
        table.add_row(name, "not finite" if value is None else f"{value:.4f}")
    if trainer.state.fn == TrainerFn.FITTING:
        trained, total = summary["trained_parameters"], summary["total_parameters"]
        selected = summary["selected"]
        table.add_row("trained", ", ".join(selected) if isinstance(selected, list) else str(selected))
        table.add_row("trained parameters", f"{trained:,} of {total:,} ({trained / total:.4%})")
        seconds = summary["seconds"]
        table.add_row("seconds, scoring", f"{seconds['score']:.1f}")
        table.add_row(
            "seconds, fit loop", f"{seconds['train']:.1f} (an epoch's training part {seconds['train_epoch']:.1f})"
        )
        checkpoint = _checkpoint(trainer)
        if checkpoint and Path(checkpoint).exists():  # It may be remote.
            table.add_row("adapter checkpoint", f"{checkpoint_file(checkpoint).stat().st_size / 1024:,.1f} KB")
    return table
