"""Precisions and methods of training in two processes."""

import pytest

from tests.strategies.cluster import ALIKE, TORCH, Cluster, Job
from tests.strategies.worker import DRIFT_STEPS


@pytest.mark.parametrize(("job", "strategy"), ALIKE)
def test_further_runs_of_two_processes_are_as_those_of_one(
    job: str, strategy: str, results: Job, cluster: Cluster
) -> None:
    """In bf16, batches of another size round otherwise."""
    alone = cluster.alone(job)
    tolerance = 2e-3 if job == "mixed" else 1e-6
    first, second = results(job, strategy)
    assert first["trained"] == second["trained"]
    assert first["losses"] == pytest.approx(alone["losses"], abs=tolerance)
    assert list(first["trained"]) == list(alone["trained"])
    for name, values in alone["trained"].items():
        assert first["trained"][name] == pytest.approx(values, abs=tolerance)
    if job == "fused":
        assert [name.rpartition(".")[2] for name in first["trained"]] == ["original2"] * 3  # value alone
    if job == "heads":
        assert [len(values) for values in first["trained"].values() if len(values) == 8] == [8, 8]
        assert sum(name.rpartition(".")[2].startswith("original") for name in first["trained"]) == 2


def test_heads_are_refused_where_the_model_is_sharded_as_it_is_loaded(results: Job) -> None:
    for result in results("heads", "zero3"):
        assert "heads cannot be set apart any more" in result["error"]
        assert "use another strategy for single heads" in result["error"]


@pytest.mark.parametrize("strategy", [*TORCH, "zero2", "zero3"])
def test_biases_do_not_stall_over_a_bf16_base(strategy: str, results: Job) -> None:
    """A bf16 bias of 1 would not move at all: the next number is 1.0078."""
    for result in results("drift", strategy):
        assert len(result["values"]) == 3
        for values in result["values"].values():
            assert values == pytest.approx([1 + 1e-4 * DRIFT_STEPS] * 32, abs=1e-5)
