"""What a run shows while it goes on: a panel, a bar, and a line for each epoch."""

import shlex
import time
from collections.abc import Sized
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from beft_lightning.callbacks.bias_selection import BiasSelectionCallback
from beft_lightning.files import from_here
from beft_lightning.parameters import numel
from beft_lightning.progress import Bar
from beft_lightning.strategies.adaptation import adapt, release
from beft_lightning.tasks import LanguageTaskModule
from beft_lightning.words import batches


class Terminal(ProgressBar):
    """Print a panel before a fit, a line after each epoch, and show one bar with the time that remains.

    Only the first process prints. Where the output is no terminal (a pipe, a file), there is no bar.

    Args:
        console: Where to print; by default the standard output.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[Terminal()], logger=False, enable_checkpointing=False)
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self._given = console
        self._enabled = True
        self._bar: Bar | None = None
        self._epoch_start = 0.0
        self._next: list[str] = []

    def disable(self) -> None:
        """Print nothing; Lightning calls it in all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Print again."""
        self._enabled = True

    @property
    def _console(self) -> Console:
        # Not made earlier: the output may be redirected between two runs.
        return self._given or Console()

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print what a module prints with ``self.print``, above the bar."""
        if self._enabled:
            console = self._bar.console if self._bar else self._console
            console.print(*args, **kwargs, markup=False, highlight=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the strategy count the parameters before it shards them."""
        super().setup(trainer, pl_module, stage)
        adapt(trainer.strategy)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say what to do with the result, behind what other callbacks print at the end; give the strategy back."""
        if self._next:
            self.print(*self._next, sep="\n  ", soft_wrap=True)
        self._next = []
        release(trainer.strategy)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what is trained on what."""
        total = trainer.estimated_stepping_batches * trainer.accumulate_grad_batches
        facts = described_run(trainer, pl_module)  # On every rank: sharded parameters are counted together.
        if self._enabled:
            self._console.print(Panel.fit(facts, title="fit", title_align="left"))
        done = trainer.current_epoch * trainer.num_training_batches
        self._start("training", total, int(done) if done != float("inf") else 0)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the epoch."""
        self._epoch_start = time.perf_counter()
        self._describe(_epoch(trainer))

    def on_train_batch_end(self, *_: Any) -> None:
        """Move the bar."""
        self._advance()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch's metrics."""
        metrics = [f"{name} {value:.4f}" for name, value in sorted(trainer.callback_metrics.items())]
        facts = [_epoch(trainer), *metrics, f"{time.perf_counter() - self._epoch_start:.1f} s"]
        console = self._console  # A file has one line for an epoch.
        for line in joined(facts, console.width) if console.is_terminal else ["  ".join(facts)]:
            self.print(line, soft_wrap=True)

    def on_train_end(self, *_: Any) -> None:
        """Remove the bar."""
        self._stop()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out what can be done with the result."""
        self._next = next_steps(trainer, pl_module)

    def on_exception(self, *_: Any) -> None:
        """Remove the bar."""
        self._stop()

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that the evaluation is tried out."""
        self._start("trying the validation", sum(trainer.num_sanity_val_batches))

    def on_sanity_check_end(self, *_: Any) -> None:
        """Remove the bar."""
        self._stop()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the validation of an epoch in the bar of the fit, any other in one of its own."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._start("validation", sum(trainer.num_val_batches))
        elif not trainer.sanity_checking:
            self._describe(f"{_epoch(trainer)}, validation")

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Move the bar, unless it is that of the fit."""
        if trainer.state.fn == TrainerFn.VALIDATING or trainer.sanity_checking:
            self._advance()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the bar of the validation."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._stop()
        elif not trainer.sanity_checking:
            self._describe(_epoch(trainer))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar of the test."""
        self._start("test", sum(trainer.num_test_batches))

    def on_test_batch_end(self, *_: Any) -> None:
        """Move the bar."""
        self._advance()

    def on_test_end(self, *_: Any) -> None:
        """Remove the bar."""
        self._stop()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar of the predictions."""
        self._start("predictions", sum(trainer.num_predict_batches))

    def on_predict_batch_end(self, *_: Any) -> None:
        """Move the bar."""
        self._advance()

    def on_predict_end(self, *_: Any) -> None:
        """Remove the bar."""
        self._stop()

    def _start(self, description: str, total: float, done: int = 0) -> None:
        console = self._console
        if self._enabled and console.is_terminal:
            # The batches of the first evaluation are counted after it has begun.
            self._bar = Bar(console, description, int(total) if 0 < total < float("inf") else None, done)

    def _describe(self, description: str) -> None:
        if self._bar is not None:
            self._bar.describe(description)

    def _advance(self) -> None:
        if self._bar is not None:
            self._bar.advance()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = None


def _epoch(trainer: Trainer) -> str:
    """The epoch, counted from 1, as summary and README count."""
    last = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
    return f"epoch {trainer.current_epoch + 1}{last}"


def joined(facts: list[str], width: int) -> list[str]:
    """Return facts in lines that break between two facts.

    Args:
        facts: What stands beside each other.
        width: Longest line, in characters.

    >>> joined(["epoch 1/3", "val_accuracy 0.7510", "val_loss 0.6012"], 32)
    ['epoch 1/3  val_accuracy 0.7510', '  val_loss 0.6012']
    """
    lines = facts[:1]
    for fact in facts[1:]:
        longer = f"{lines[-1]}  {fact}"
        lines = [*lines[:-1], longer] if len(longer) <= width else [*lines, f"  {fact}"]
    return lines


def next_steps(trainer: Trainer, module: LightningModule) -> list[str]:
    """Return the commands that use a fit, under a heading: to predict, and to export what can be exported.

    Args:
        trainer: A trainer at the end of its fit.
        module: The module that was trained.

    Returns:
        The heading, which says what new inputs need, and the commands; nothing without a checkpoint that the command
        line can read.
    """
    checkpoint = getattr(trainer.checkpoint_callback, "last_model_path", "")
    if not checkpoint or not isinstance(module, LanguageTaskModule):
        return []
    path, program = shlex.quote(from_here(checkpoint)), "python -m beft_lightning"
    commands = [f"{program} predict --ckpt_path {path} --input new.csv --out predictions.jsonl"]
    if module.method is None or module.method.export_obstacle is None:
        commands.append(f"{program} export --checkpoint {path} --format hf --out model")
    return [f"next (columns of new.csv: {', '.join(module.task.input_columns)}):", *commands]


def described_run(trainer: Trainer, module: LightningModule) -> Table:
    """Return what a fit trains, on what, and how.

    Args:
        trainer: A trainer at the start of its fit.
        module: The module that is trained.

    Returns:
        A table with a row for each fact.
    """
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    selection = next((callback for callback in callbacks if isinstance(callback, BiasSelectionCallback)), None)
    selected = (selection.selected if selection else None) or getattr(module, "tune", None)
    trained = sum(numel(parameter) for parameter in module.parameters() if parameter.requires_grad)
    total = adapt(trainer.strategy).total_parameters
    names = ", ".join(selected) if isinstance(selected, list) else str(selected or "the module's own choice")
    loader = trainer.train_dataloader
    dataset = getattr(loader, "dataset", None)
    examples = f"{len(dataset):,} examples, " if isinstance(dataset, Sized) else ""
    validation = f"{batches(sum(trainer.num_val_batches))} of validation" if trainer.num_val_batches else "none"
    devices = f"{trainer.world_size} x " if trainer.world_size > 1 else ""
    table = Table.grid(padding=(0, 2))
    table.add_row("model", f"{getattr(module, 'backbone', type(module).__name__)}, {total:,} parameters")
    table.add_row("trained", f"{names}: {trained:,} values ({trained / total:.4%}), head included")
    table.add_row("data", f"{examples}{batches(trainer.num_training_batches)} an epoch; {validation}")
    strategy = type(trainer.strategy).__name__.removesuffix("Strategy")
    table.add_row("run", f"{devices}{module.device.type}, {trainer.precision}, {strategy}")
    return table
