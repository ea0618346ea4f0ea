"""Processes that fit and are ended from outside; ``python -m tests.kill_loop`` does so as often as asked for."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def run(*options: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.kill_loop", *options]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    counts: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return counts


def test_a_killed_fit_loses_nothing_that_it_should_keep() -> None:
    assert run("--signal", "SIGKILL", "--moments", "2", "--from", "0.5", "--to", "0.9")["saved"] == 2


def test_a_signal_to_a_fit_and_its_workers_at_once_loses_nothing() -> None:
    options = ("--signal", "SIGTERM", "--group", "--workers", "2")
    assert run(*options, "--moments", "1", "--from", "0.5", "--to", "0.9")["saved"] == 1


def test_one_of_two_processes_ends_both() -> None:
    assert (
        run("--signal", "SIGTERM", "--moments", "1", "--from", "0.5", "--to", "0.8", "--processes", "2")["saved"] == 1
    )
