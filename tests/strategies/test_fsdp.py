"""FSDP of the first kind."""

import pytest

from beft_lightning.errors import BeftError
from tests.strategies.cluster import Cluster, Job
from tests.strategies.worker import Runs


def test_fsdp_refuses_the_matrices_of_lora(results: Job) -> None:
    for result in results("lora", "fsdp"):
        assert "vectors (biases and norms) and the head can be trained, and 'model.bert." in result["error"]
        assert "lora_A.default.weight' is neither" in result["error"]


def test_fsdp_refuses_to_train_a_weight_matrix(cluster: Cluster) -> None:
    """In a group of one process, which is enough to wrap a model."""
    runs = Runs(*cluster.arguments, "matrix", "fsdp")
    trainer = runs.trainer()
    runs.selection.head = ["*pooler.dense.weight"]
    with pytest.raises(BeftError, match="vectors .* and 'model.bert.pooler.dense.weight' is neither.*ModelParallel"):
        trainer.fit(**runs.parts())
