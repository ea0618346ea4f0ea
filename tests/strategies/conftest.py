"""Runs of two processes, started once and shared by the tests of this folder."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from beft_lightning.strategies.collectives import destroy_process_group
from tests.strategies.cluster import ALIKE, DEEPSPEED, DEEPSPEED_CONFIGS, TORCH, Cluster, Job, a_free_port
from tests.tiny import save_backbone, write_sst2


@pytest.fixture(autouse=True)
def _in_no_group() -> Iterator[None]:
    """Tests in this process leave the group of one process that they were in."""
    yield
    destroy_process_group()


@pytest.fixture
def free_port() -> int:
    return a_free_port()


@pytest.fixture(scope="session")
def cluster(shared_folder: Path) -> Cluster:
    """The folder of all runs."""
    folder = shared_folder / "strategies"
    folder.mkdir(exist_ok=True)
    # One process draws other dropout masks than two; where dropout belongs to a test, the worker sets it.
    with FileLock(folder / ".lock"):
        if not (folder / "data").exists():
            save_backbone(folder / "bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
            save_backbone(folder / "bert-llama", "llama", causal=True, biases=False, tie_word_embeddings=True)
            save_backbone(folder / "bert-gpt2", "gpt2", causal=True, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)
            (folder / "runs").mkdir()
            write_sst2(folder / "data")
    return Cluster(folder / "runs", str(folder / "bert"), str(folder / "data"))


@pytest.fixture(scope="session")
def alone(cluster: Cluster) -> dict[str, Any]:
    """What one process does."""
    return cluster.alone("protocol")


@pytest.fixture(scope="session")
def decoder_alone(cluster: Cluster) -> dict[str, Any]:
    return cluster.alone("decoder")


@pytest.fixture(scope="session")
def with_torch(cluster: Cluster) -> None:
    """All jobs of torch's own strategies, on two nodes of one process each."""
    jobs = [f"{job}:{s}" for job in ("protocol", "decoder", "middle", "drift", "config") for s in TORCH]
    jobs += ["generate:fsdp", "generate:fsdp2", "bytes:ddp", "bytes:fsdp2", "foreign:fsdp2", "different:ddp"]
    jobs += ["own_encoder:ddp", "own_decoder:ddp"]
    jobs += ["lora:fsdp", *(f"{job}:{strategy}" for job, strategy in ALIKE if strategy in TORCH)]
    cluster.run_once("torch", *jobs, nodes=2)


@pytest.fixture(scope="session")
def with_deepspeed(cluster: Cluster) -> None:
    """All jobs of DeepSpeed, on one node of two processes."""
    if find_spec("deepspeed") is None:
        pytest.skip("needs DeepSpeed: pip install deepspeed")
    jobs = [*(f"protocol:{s}" for s in DEEPSPEED), *(f"config:{s}" for s in DEEPSPEED_CONFIGS)]
    jobs += ["decoder:zero2", "decoder:zero3", "drift:zero2", "drift:zero3", "generate:zero3", "heads:zero3"]
    jobs += [*(f"middle:{s}" for s in DEEPSPEED), *(f"{job}:{s}" for job, s in ALIKE if s in DEEPSPEED)]
    cluster.run_once("deepspeed", *jobs)


@pytest.fixture
def results(cluster: Cluster, request: pytest.FixtureRequest) -> Job:
    def get(job: str, strategy: str) -> list[dict[str, Any]]:
        request.getfixturevalue("with_torch" if strategy in TORCH else "with_deepspeed")
        return cluster.results(job, strategy)

    return get
