"""Processes that are lost, that never come, or that differ from the others."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.strategies.cluster import (
    ROOT,
    Cluster,
    Job,
)
from tests.strategies.worker import CONFIGS, Runs


def test_a_lost_process_ends_the_run_which_can_be_resumed(cluster: Cluster, alone: dict[str, Any]) -> None:
    done = cluster.run("killed:fsdp2")
    assert done.returncode != 0
    assert "Signal 9 (SIGKILL)" in done.stdout
    runs = Runs(*cluster.arguments, "killed", "single")
    runs.folder = cluster.out / "killed-fsdp2"
    assert runs.resume()["losses"] == pytest.approx(alone["losses"][6:], abs=1e-6)


def test_the_survivor_of_a_lost_process_says_so(cluster: Cluster, tmp_path: Path, free_port: int) -> None:
    """Without torchrun, which would stop it."""
    config = cluster.config("auto")
    config["trainer"] |= {
        "max_epochs": 2,
        "num_nodes": 2,
        "callbacks": [{"class_path": "tests.strategies.parts.Kill"}],
    }
    (tmp_path / "tiny.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", "beft_lightning", "fit", "--config", str(tmp_path / "tiny.yaml")]
    command += ["--config", str(CONFIGS / "ddp.yaml")]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port), "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    joined = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "none"}
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **place, **joined, "RANK": str(rank), "GROUP_RANK": str(rank), "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        error, _ = (process.communicate(timeout=150)[1] for process in processes)
    finally:
        for process in processes:
            process.kill()
    survivor, lost = processes
    assert lost.returncode == -signal.SIGKILL
    assert survivor.returncode == 2, error
    assert "error: process 0 of 2 has lost contact with the others (" in error
    assert "its own output says why. To go on, start all of them again with --ckpt_path" in error
    assert "Traceback" not in error


def test_a_node_that_never_joins_ends_the_run(cluster: Cluster, tmp_path: Path, free_port: int) -> None:
    """As torchrun starts a worker; torchrun itself gives up after its own time."""
    config = tmp_path / "tiny.yaml"
    config.write_text(json.dumps(cluster.config("auto")))
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port), "RANK": "0", "WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "beft_lightning", "fit", "--config", str(config)]
    command += ["--config", str(CONFIGS / "ddp.yaml"), "--trainer.strategy.init_args.timeout", "0:00:02"]
    command += ["--trainer.num_nodes", "2"]
    joined = {"LOCAL_RANK": "0", "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "none"}
    environment = {**os.environ, **place, **joined, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert f"error: not all of the 2 processes have met at 127.0.0.1:{free_port} (" in done.stderr


def test_processes_that_differ_are_told_apart(results: Job) -> None:
    for result in results("different", "ddp"):
        rate, data = result["messages"]
        assert rate.startswith("learning_rate is 0.0 in process 0 and 0.1 in process 1: start all processes with the")
        assert data.startswith("the data of split 'train' is '40 examples, ")
