"""Handlers of signals, and the exit code."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from select import select
from threading import Thread
from typing import Any

import pytest

from beft_lightning import signals
from beft_lightning.signals import ENDING, Interrupted, end_at_once, handled, install, leave_ending_to_parent


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_becomes_an_exit_code(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"{number.name}: ended") as raised, handled(end_at_once):
        os.kill(os.getpid(), number)
    assert raised.value.code == 128 + number
    assert signal.getsignal(number) == before


def test_it_says_how_to_go_on() -> None:
    assert "  --ckpt_path runs/last.ckpt\n" in str(Interrupted(signal.SIGTERM, "runs/last.ckpt"))


def test_only_the_main_thread_has_handlers() -> None:
    found: list[Any] = []
    thread = Thread(target=lambda: found.append(install(end_at_once, [signal.SIGTERM])))
    thread.start()
    thread.join()
    assert found == [{}]


def forked(act: Callable[[], None]) -> int:
    """A process that acts, says that it has, and waits. It ends with 3 by itself, so that no test hangs."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(60)
        act()
        os.write(write, b".")
        signal.pause()
        os._exit(3)
    os.read(read, 1)
    os.close(read)
    os.close(write)
    return child


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("number", ENDING)
def test_a_worker_ends_when_its_parent_says_so_and_not_when_others_do(number: signal.Signals) -> None:
    child = forked(leave_ending_to_parent)
    for _ in range(2):
        subprocess.run(["kill", f"-{number.value}", str(child)], check=True)
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        os.kill(child, number)  # again, as a signal is lost while another one of its kind is pending
        time.sleep(0.01)
    assert ended == (child, 0)


def test_a_worker_ends_after_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_PARENT_CHECK_SECONDS", 0.01)
    read, write = os.pipe()

    def start_worker() -> None:
        os.write(write, f"{forked(leave_ending_to_parent)}\n".encode())

    parent = forked(start_worker)
    os.close(write)
    assert int(os.read(read, 100))
    os.kill(parent, signal.SIGKILL)
    exit_code(parent)
    assert select([read], [], [], 30)[0]
    assert os.read(read, 1) == b""  # the worker has closed it, too
    os.close(read)
