"""A race in two processes."""

from typing import Any

import pytest

from tests.strategies.cluster import Cluster


@pytest.fixture(scope="module")
def raced(cluster: Cluster) -> Cluster:
    """The jobs of this module, on one node of two processes."""
    cluster.run_once("race", "race:ddp", "race:fsdp2")
    return cluster


def test_two_processes_race_as_one(raced: Cluster) -> None:
    alone = raced.alone("race")
    first, second = raced.results("race", "ddp")
    assert first == second
    assert (first["selected"], first["rate"], first["batches"]) == (alone["selected"], alone["rate"], alone["batches"])
    assert first["losses"] == pytest.approx(alone["losses"], abs=1e-6)
    for name, values in alone["trained"].items():
        assert first["trained"][name] == pytest.approx(values, abs=1e-6)


def test_a_sharded_model_is_refused(raced: Cluster) -> None:
    messages: list[Any] = [result["message"] for result in raced.results("race", "fsdp2")]
    assert all("ModelParallelStrategy shards both: use DDPStrategy" in message for message in messages)
