"""Facts about strategies that shard; the two-process tests of this folder have what they do."""

from collections.abc import Callable
from typing import Any

import pytest
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

from beft_lightning.strategies.adaptation import adapt, release
from beft_lightning.strategies.sharded import ShardedAdapterStrategy

SHARDED: list[Callable[[], Any]] = [FSDPStrategy, ModelParallelStrategy]


@pytest.mark.parametrize("make", SHARDED)
def test_checkpoints_are_restored_before_sharding_and_whole(make: Callable[[], Any]) -> None:
    strategy = adapt(make())
    assert isinstance(strategy, ShardedAdapterStrategy)
    assert not strategy.restore_checkpoint_after_setup
    assert strategy.lightning_restore_optimizer
    assert "int8" not in strategy.quantized
    release(strategy)
    assert isinstance(strategy, ShardedAdapterStrategy)  # as its model stays sharded
