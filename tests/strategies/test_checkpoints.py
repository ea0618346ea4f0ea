"""Which CheckpointIO a strategy gets."""

from collections.abc import Callable
from typing import Any

import pytest
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy, SingleDeviceStrategy

from beft_lightning.checkpoint_io import AtomicCheckpointIO
from beft_lightning.strategies.checkpoints import use_atomic_checkpoints

STRATEGIES: list[Callable[..., Any]] = [SingleDeviceStrategy, DDPStrategy, FSDPStrategy, ModelParallelStrategy]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_gets_it_and_a_choice_of_the_users_stays(strategy: Callable[..., Any]) -> None:
    ours = strategy()
    use_atomic_checkpoints(ours)
    assert isinstance(ours.checkpoint_io, AtomicCheckpointIO)

    class Custom(TorchCheckpointIO):
        pass

    ours = strategy()
    ours.checkpoint_io = chosen = Custom()
    use_atomic_checkpoints(ours)
    assert ours.checkpoint_io is chosen

    for inner in (None, TorchCheckpointIO()):
        ours = strategy()
        ours.checkpoint_io = wrapper = AsyncCheckpointIO(inner)
        use_atomic_checkpoints(ours)
        assert ours.checkpoint_io is wrapper
        assert isinstance(wrapper.checkpoint_io, AtomicCheckpointIO)

    ours.checkpoint_io = wrapper = AsyncCheckpointIO(Custom())
    use_atomic_checkpoints(ours)
    assert isinstance(wrapper.checkpoint_io, Custom)
