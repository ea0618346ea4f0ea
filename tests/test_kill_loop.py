"""Processes that fit and are ended from outside; ``python -m tests.kill_loop`` does so as often as asked for."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def run(*options: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.kill_loop", *options]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    counts: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return counts


@pytest.mark.parametrize(("number", "moments"), [("SIGKILL", "2"), ("SIGTERM", "1")])
def test_an_ended_fit_loses_nothing_that_it_should_keep(number: str, moments: str) -> None:
    assert run("--signal", number, "--moments", moments, "--from", "0.5", "--to", "0.9")["saved"] == int(moments)


def test_one_of_two_processes_ends_both() -> None:
    assert (
        run("--signal", "SIGTERM", "--moments", "1", "--from", "0.5", "--to", "0.8", "--processes", "2")["saved"] == 1
    )
