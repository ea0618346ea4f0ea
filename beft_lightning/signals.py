"""Ending on a signal: the exception, the exit code, handlers that are put back, and workers that leave it to others."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Thread, current_thread, main_thread
from types import FrameType
from typing import Any, NoReturn

#: The signals that ask a process to end: ``kill`` and schedulers send the first, Ctrl-C the second.
ENDING = (signal.SIGTERM, signal.SIGINT)

#: How often a worker looks whether its parent is still there.
_PARENT_CHECK_SECONDS = 5.0

Handler = Callable[[int, FrameType | None], Any]


class Interrupted(SystemExit):
    """A signal has ended this process; the exit code is 128 plus the signal's number, as shells count.

    Args:
        signum: Number of the signal.
        saved: Checkpoint to go on from, if one was written.
    """

    def __init__(self, signum: int, saved: str | None = None) -> None:
        super().__init__(128 + signum)
        self.signum = signum
        self.saved = saved
        #: Whether the user was told what to do next.
        self.reported = False

    def __str__(self) -> str:
        name = signal.Signals(self.signum).name
        if self.saved is None:
            return f"{name}: ended. Start the same command again."
        return (
            f"{name}: ended. To go on, start the same command again with\n"
            f"  --ckpt_path {self.saved}\n(in Python, trainer.fit(..., ckpt_path={self.saved!r}))."
        )


def end_at_once(signum: int, frame: FrameType | None) -> NoReturn:
    """Handle a signal by ending the process, through all ``finally`` blocks."""
    raise Interrupted(signum)


def install(handler: Handler, signals: Iterable[int]) -> dict[int, Any]:
    """Handle signals; Python lets only the main thread do so.

    Returns:
        The handlers that were there before, by signal; nothing in another thread.
    """
    if current_thread() is not main_thread():
        return {}
    return {signum: signal.signal(signum, handler) for signum in signals}


def restore(handlers: dict[int, Any]) -> None:
    """Put back what :func:`install` returned."""
    for signum, handler in handlers.items():
        # None stands for a handler that was not installed from Python.
        if handler is not None and current_thread() is main_thread():
            signal.signal(signum, handler)


@contextmanager
def handled(handler: Handler, signals: Iterable[int] = ENDING) -> Iterator[None]:
    """Handle signals within a ``with`` block."""
    previous = install(handler, signals)
    try:
        yield
    finally:
        restore(previous)


def leave_ending_to_parent(worker_id: int = 0) -> None:
    """Keep a worker of a DataLoader alive until its parent ends it: pass this as ``worker_init_fn``.

    Schedulers and terminals send a signal to all processes of a job. A worker that ends at once takes away the data
    that the fit still needs to finish its step and save. This blocks :data:`ENDING`, in all threads that start later,
    too, and ends the worker when the parent sends one of them, or has ended itself.

    Nothing is done on systems that do not tell who sent a signal (macOS and Windows).

    Args:
        worker_id: Number of the worker; not used.
    """
    if not hasattr(signal, "sigtimedwait"):
        return
    parent = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)

    def wait_for_parent() -> None:
        while os.getppid() == parent:
            received = signal.sigtimedwait(ENDING, _PARENT_CHECK_SECONDS)
            if received is not None and received.si_pid == parent:
                break
        os._exit(0)  # as torch's own workers do

    Thread(target=wait_for_parent, daemon=True).start()
