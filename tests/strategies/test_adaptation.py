"""A strategy gets the methods of this package, and returns to its own class."""

import copy
import pickle
from typing import Any

from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

from beft_lightning.strategies.adaptation import adapt, release
from beft_lightning.strategies.adapter import AdapterStrategy


def test_a_strategy_is_adapted_once_and_stays_what_it_was() -> None:
    strategy: Any = ModelParallelStrategy()
    assert adapt(strategy) is strategy
    assert adapt(strategy) is strategy
    assert isinstance(strategy, ModelParallelStrategy)
    assert type(strategy).__name__ == "ModelParallelStrategy"


def test_only_strategies_with_the_whole_model_return_to_their_class() -> None:
    class Own(DDPStrategy):
        """A user's strategy."""

    whole, sharded = Own(), ModelParallelStrategy()
    for strategy in (whole, sharded):
        adapt(strategy)
        assert isinstance(strategy, AdapterStrategy)
        release(strategy)
    assert type(whole) is Own
    assert isinstance(sharded, AdapterStrategy)


def test_an_adapted_strategy_can_be_copied_and_pickled() -> None:
    strategy: Any = adapt(ModelParallelStrategy(save_distributed_checkpoint=False))
    for twin in (copy.deepcopy(strategy), pickle.loads(pickle.dumps(strategy))):
        assert type(twin) is type(strategy)
        assert not twin._save_distributed_checkpoint
