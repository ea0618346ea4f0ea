"""Resuming in two processes, in one what two began, and under another strategy."""

import signal
from typing import Any

import pytest

from beft_lightning.checkpoint import read_checkpoint
from beft_lightning.errors import CheckpointError
from tests.strategies.cluster import STRATEGIES, TORCH, Cluster, Job
from tests.strategies.worker import Runs


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_resuming_after_an_epoch_is_exact_and_selects_nothing(strategy: str, results: Job) -> None:
    for result in results("protocol", strategy):
        assert result["resumed"]["losses"] == result["losses"][6:]
        assert result["resumed"]["trained"] == result["trained"]
        assert result["resumed"]["seconds_scoring"] == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_resuming_within_an_epoch_is_exact_with_dropout(strategy: str, results: Job) -> None:
    for result in results("middle", strategy):
        assert len(result["whole"]) == 12
        assert result["rest"] == result["whole"][4:]


@pytest.mark.parametrize("strategy", ["fsdp", "zero3"])
def test_a_fit_that_a_signal_to_one_process_has_ended_resumes_exactly(strategy: str, results: Job) -> None:
    for result, whole in zip(results("interrupted", strategy), results("middle", strategy), strict=True):
        assert result["code"] == 128 + signal.SIGTERM
        assert result["losses"] == whole["whole"]
        assert result["trained"] == whole["trained"]


@pytest.mark.parametrize("strategy", TORCH)
def test_one_process_resumes_what_two_began(
    strategy: str, results: Job, cluster: Cluster, alone: dict[str, Any]
) -> None:
    results("protocol", strategy)
    runs = Runs(*cluster.arguments, "protocol", "single")
    runs.folder = cluster.out / f"protocol-{strategy}"
    assert runs.resume()["losses"] == pytest.approx(alone["losses"][6:], abs=1e-6)


def test_deepspeed_resumes_only_its_own_checkpoints(results: Job, cluster: Cluster) -> None:
    results("protocol", "zero2")
    runs = Runs(*cluster.arguments, "protocol", "single")
    runs.folder = cluster.out / "protocol-zero2"
    with pytest.raises(CheckpointError, match="written under DeepSpeed, which alone .* resume with the same strategy"):
        runs.resume()
    assert set(read_checkpoint(runs.folder / "epoch=0.ckpt")["state_dict"]) == set(
        results("protocol", "zero2")[0]["names"]
    )
