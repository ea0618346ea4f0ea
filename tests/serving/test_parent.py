"""Processes do not outlive a parent that is killed."""

import os
import subprocess
import sys
import time

import pytest

from beft_lightning.serving import parent

_PARENT = """
import os, signal, sys, time
exec(open(sys.argv[1]).read())  # the module alone: its package takes seconds
os.register_at_fork(after_in_child=lambda: end_with_parent(0.05))
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(os.getpid(), flush=True)
time.sleep(60)
"""


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="needs fork")
def test_a_fork_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT, parent.__file__], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        time.sleep(0.2)
        assert _lives(child)  # as long as its parent
        process.kill()
    deadline = time.monotonic() + 30
    while _lives(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)
