"""Bars for what takes long: they exist in a terminal only, and leave nothing behind."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Bar:
    """A bar at the bottom of a terminal; messages of Lightning go above it.

    Args:
        console: The terminal.
        description: What goes on.
        total: Number of steps; ``None`` if it is unknown.
        done: Steps that are done already.
    """

    def __init__(self, console: Console, description: str, total: int | None = None, done: int = 0) -> None:
        self.console = console
        steps = () if total is None else (MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), *steps, console=console, transient=True
        )
        self._task = self._progress.add_task(description, total=total, completed=done)
        self._progress.start()
        # The bar has replaced the standard error, so that what is written goes above it.
        self._streams = {handler: handler.setStream(sys.stderr) for handler in _handlers()}

    def advance(self) -> None:
        """Move the bar by a step."""
        self._progress.advance(self._task)

    def describe(self, description: str) -> None:
        """Say what goes on now."""
        self._progress.update(self._task, description=description)

    def stop(self) -> None:
        """Remove the bar."""
        for handler, stream in self._streams.items():
            handler.setStream(stream or sys.stderr)
        self._progress.stop()


@contextmanager
def bar(description: str, total: int, trainer: Trainer | None = None) -> Iterator[Callable[[], None]]:
    """Show a bar while the block runs: in the first process, in a terminal, unless the trainer shall have none.

    Args:
        description: What goes on.
        total: Most steps.
        trainer: The trainer that it belongs to, if there is one.

    Yields:
        What moves the bar by a step.
    """
    wanted = trainer is None or trainer.progress_bar_callback is not None
    console = Console()
    if not (wanted and console.is_terminal and getattr(rank_zero_only, "rank", 0) == 0):
        yield lambda: None
        return
    shown = Bar(console, description, total)
    try:
        yield shown.advance
    finally:
        shown.stop()


def _handlers() -> list[logging.StreamHandler[TextIO]]:
    """What writes Lightning's messages to the terminal."""
    loggers = (logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric"))
    handlers = {handler for logger in loggers for handler in logger.handlers}
    return [handler for handler in handlers if type(handler) is logging.StreamHandler]
