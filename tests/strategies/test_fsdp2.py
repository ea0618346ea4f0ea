"""FSDP of the second kind."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.fsdp import fully_shard

from beft_lightning import BiasSelectionCallback
from beft_lightning.errors import BeftError
from tests.strategies.cluster import Cluster, Job
from tests.strategies.worker import Runs
from tests.tiny import ForeignModule, token_batches


def test_a_module_that_shards_itself(results: Job) -> None:
    for result in results("foreign", "fsdp2"):
        assert result["selected"] == ["value"]
        assert result["rest"] == result["whole"][4:]


class TwoByOne(dict[str, Any]):
    """Stands in for the mesh of two devices that split each layer."""

    def __missing__(self, name: str) -> Any:
        return SimpleNamespace(size=lambda: 2 if name == "tensor_parallel" else 1)


def test_a_plan_to_split_layers_is_refused_for_modules_that_have_none(make_trainer: Callable[..., Trainer]) -> None:
    class Waits(ForeignModule):
        def configure_model(self) -> None:
            pass

    class Splits(ModelParallelStrategy):
        device_mesh = TwoByOne()  # type: ignore[assignment]

    trainer = make_trainer(strategy=Splits(), callbacks=[BiasSelectionCallback()])
    with pytest.raises(BeftError, match="split each layer over 2 devices.*set data_parallel_size to 1"):
        trainer.fit(Waits(), token_batches())


def test_parameters_that_a_sharded_module_leaves_out_are_named(cluster: Cluster) -> None:
    class LeavesOut(ForeignModule):
        def configure_model(self) -> None:
            assert self.device_mesh is not None
            fully_shard(self.net, mesh=self.device_mesh["data_parallel"])

    runs = Runs(*cluster.arguments, "out", "fsdp2")
    with pytest.raises(BeftError, match="the model is sharded, but not its 'extra.weight'"):
        runs.trainer().fit(LeavesOut(), token_batches())
