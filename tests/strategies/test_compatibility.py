"""Which precision, strategy and option fit together."""

from collections.abc import Callable
from importlib.util import find_spec

import pytest
from lightning.pytorch import Trainer

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback
from beft_lightning.errors import BeftError
from beft_lightning.models import QUANTIZED
from beft_lightning.strategies.adaptation import adapt
from tests.strategies.cluster import DEEPSPEED, Cluster
from tests.strategies.cpu_strategies import STRATEGIES as WORKER_STRATEGIES
from tests.strategies.worker import Runs
from tests.tiny import ForeignModule, token_batches


def test_half_precision_is_refused(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(precision="bf16-true", callbacks=[BiasSelectionCallback(), AdapterCheckpoint()])
    with pytest.raises(BeftError, match="would cast the trained biases to half precision.*use 'bf16-mixed'"):
        trainer.fit(ForeignModule(), token_batches())


def test_quantized_weights_are_refused_where_they_would_be_sharded(cluster: Cluster) -> None:
    runs = Runs(*cluster.arguments, "sharded", "fsdp2")
    with pytest.raises(BeftError, match="'int8' under ModelParallelStrategy, which would shard .*: use DDPS"):
        runs.trainer().fit(**runs.parts(dtype="int8"))
    names = [name for name in WORKER_STRATEGIES if "zero" not in name]
    allowed = {name: adapt(WORKER_STRATEGIES[name]()).quantized for name in names}
    assert allowed == {"single": QUANTIZED, "ddp": QUANTIZED, "fsdp": (), "fsdp2": ("nf4",)}


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs DeepSpeed: pip install deepspeed")
def test_only_the_third_stage_of_zero_refuses_what_needs_whole_weights() -> None:
    strategies = [adapt(WORKER_STRATEGIES[name]()) for name in DEEPSPEED]
    assert [strategy.quantized for strategy in strategies] == [QUANTIZED, QUANTIZED, (), ()]
    assert [strategy.recomputes for strategy in strategies] == [True, True, False, False]
