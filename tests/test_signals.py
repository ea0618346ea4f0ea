"""Handlers of signals, and the exit code."""

import os
import signal
from threading import Thread
from typing import Any

import pytest

from beft_lightning.signals import Interrupted, end_at_once, handled, install


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
