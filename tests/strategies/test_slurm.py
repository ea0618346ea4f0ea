"""SLURM jobs that go back into the queue; tests/callbacks/test_interruption.py sends the signal."""

import subprocess

import pytest

from beft_lightning.strategies import slurm


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    ran: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: ran.append(command))
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    return ran


def test_a_job_is_requeued_by_its_number(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    slurm.requeue_job()
    assert commands == [["scontrol", "requeue", "7"]]


def test_a_job_of_an_array_is_requeued_alone(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}.items():
        monkeypatch.setenv(name, value)
    slurm.requeue_job()
    assert commands == [["scontrol", "requeue", "7_2"]]


def test_a_failure_is_a_warning_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", "")
    with pytest.warns(UserWarning, match="did not requeue job 7: .*Submit it again"):
        slurm.requeue_job()
