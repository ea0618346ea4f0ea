"""Strategies from the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import distributed as dist

from beft_lightning import BiasSelectionCallback
from beft_lightning.__main__ import main
from beft_lightning.errors import BeftError
from tests.strategies.cluster import (
    DEEPSPEED_CONFIGS,
    ROOT,
    TORCH,
    Cluster,
    Job,
)
from tests.strategies.worker import CONFIGS


@pytest.mark.parametrize("config", [*TORCH, *DEEPSPEED_CONFIGS])
def test_a_shipped_configuration_runs(config: str, results: Job) -> None:
    first, second = results("config", config)
    assert first == second
    assert first["options"]["_timeout"] == "0:10:00"
    assert 0 < first["metrics"]["val_loss"] < 1


def test_without_deepspeed_its_configurations_say_what_to_install(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("beft_lightning.cli.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["beft_lightning"])
    (tmp_path / "tiny.yaml").write_text(json.dumps(cluster.config("none")))
    config = ["--config", str(tmp_path / "tiny.yaml"), "--config", str(CONFIGS / "deepspeed_zero2.yaml")]
    assert main(["fit", *config]) == 2
    error = "error: trainer.strategy lightning.pytorch.strategies.DeepSpeedStrategy needs DeepSpeed"
    assert error in capsys.readouterr().err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="lists this process's threads as Linux does")
@pytest.mark.parametrize("goes_wrong", [False, True])
def test_a_command_leaves_no_thread_of_gloo_behind(
    goes_wrong: bool,
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Such a thread may abort the process while the interpreter ends."""

    def threads() -> list[str]:
        names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
        return [name for name in names if "gloo" in name]

    before, during = threads(), []

    def look(*args: Any) -> None:
        during.extend(threads())
        if goes_wrong:
            raise BeftError("the last batch is bad")

    monkeypatch.setattr(BiasSelectionCallback, "on_train_end", look, raising=False)
    monkeypatch.setattr(sys, "argv", ["beft_lightning"])
    (tmp_path / "tiny.yaml").write_text(json.dumps(cluster.config("threads")))
    config = ["--config", str(tmp_path / "tiny.yaml"), "--config", str(CONFIGS / "ddp.yaml")]
    assert main(["fit", *config]) == (2 if goes_wrong else 0)
    assert len(during) > len(before)
    assert threads() == before
    assert not dist.is_initialized()
    assert ("error: the last batch is bad" in capsys.readouterr().err) is goes_wrong


#: Stands in for SLURM's srun: starts both tasks of two nodes here, and stops both if one fails.
SRUN = """#!/usr/bin/env bash
[[ $1 == --kill-on-bad-exit=1 ]] && shift
for node in 0 1; do
    SLURM_PROCID=$node SLURM_NODEID=$node SLURM_LOCALID=0 "$@" > "$LOGS/$node.txt" 2>&1 &
done
wait -n && wait -n || { kill $(jobs -p); exit 1; }
"""


def test_the_slurm_script_resumes_from_what_the_last_start_has_left(
    cluster: Cluster, tmp_path: Path, free_port: int
) -> None:
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    config = tmp_path / "tiny.yaml"
    config.write_text(json.dumps(cluster.config("auto")))
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "LOGS": str(tmp_path),
        "OUT": str(tmp_path / "out"),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port),
        "GLOO_SOCKET_IFNAME": "lo",
        "SLURM_JOB_NAME": "beft",
        "SLURM_JOB_ID": "1",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NODELIST": "127.0.0.1",
    }
    for epochs, resumed in ((1, ""), (2, "version_0/checkpoints/last.ckpt")):
        command = [str(ROOT / "examples" / "slurm_two_nodes.sh"), "--config", str(config)]
        command += ["--config", str(CONFIGS / "ddp.yaml"), "--trainer.max_epochs", str(epochs)]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200)
        logs = "".join((tmp_path / f"{node}.txt").read_text() for node in (0, 1))
        assert done.returncode == 0, done.stderr + logs
        assert ("Restored all states from the checkpoint" in logs) == bool(resumed)
        assert resumed in logs


def test_the_torchrun_script_runs(cluster: Cluster, tmp_path: Path, free_port: int) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(json.dumps(cluster.config("torchrun")))
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "NPROC": "2",
        "MASTER_PORT": str(free_port),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    command = [str(ROOT / "examples" / "torchrun.sh"), "--config", str(config), "--config", str(CONFIGS / "fsdp2.yaml")]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "distributed_backend=gloo" in done.stderr
    assert "All distributed processes registered. Starting with 2 processes" in done.stderr
