"""What Lightning's strategies need to score, train and save a few vectors of a frozen model.

The biases and the head are a ten-thousandth of the model, so only the frozen weights are worth sharding over the
processes. :func:`adapt` gives a trainer's strategy the few methods that the rest of the package calls. Every strategy
restores a checkpoint before it wraps the model, as the choice of what is trained comes from there, and writes the
trained values whole, so that any other strategy can read them.
"""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    Strategy,
)

from beft_lightning.errors import BeftError
from beft_lightning.strategies.fsdp import FlatShardedModel, ShardedTensorModel
from beft_lightning.strategies.hooks import call_after, call_before
from beft_lightning.strategies.parameters import clean_name, named_parameters, numel, whole
from beft_lightning.strategies.processes import check_precision, check_same, gather, leave
from beft_lightning.strategies.whole import WholeModel, checkpoint_file
from beft_lightning.strategies.zero import ZeroModel

__all__ = [
    "WholeModel",
    "adapt",
    "call_after",
    "call_before",
    "check_precision",
    "check_same",
    "checkpoint_file",
    "clean_name",
    "gather",
    "leave",
    "named_parameters",
    "numel",
    "whole",
]

#: Lightning's strategies, the special before the general, and what this package needs of them.
_ADAPTED: Mapping[type[Any], type[Any]] = {
    DeepSpeedStrategy: ZeroModel,
    FSDPStrategy: FlatShardedModel,
    ModelParallelStrategy: ShardedTensorModel,
    DDPStrategy: WholeModel,
    SingleDeviceStrategy: WholeModel,
}


def adapt(strategy: Strategy) -> WholeModel:
    """Give a trainer's strategy the methods that this package needs.

    The instance gets a subclass of its own class, so that it may be any user's subclass of Lightning's strategies.

    Raises:
        BeftError: If the strategy is none of those that are known to work.
    """
    if isinstance(strategy, WholeModel):
        return strategy
    ours = next((ours for theirs, ours in _ADAPTED.items() if isinstance(strategy, theirs)), None)
    if ours is None:
        raise BeftError(
            f"{type(strategy).__name__} cannot train a choice of biases; use one of: "
            f"{', '.join(known.__name__ for known in _ADAPTED)}."
        )
    theirs = type(strategy)
    strategy.__class__ = type(theirs.__name__, (ours, theirs), {"__module__": theirs.__module__})
    assert isinstance(strategy, WholeModel)
    return strategy
