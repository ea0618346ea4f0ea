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
from beft_lightning.strategies.adapter import AdapterStrategy
from beft_lightning.strategies.collectives import check_same, destroy_process_group, gather
from beft_lightning.strategies.compatibility import check_precision
from beft_lightning.strategies.deepspeed import DeepSpeedAdapterStrategy
from beft_lightning.strategies.fsdp import FSDP2AdapterStrategy, FSDPAdapterStrategy
from beft_lightning.strategies.hooks import call_after, call_before

__all__ = [
    "AdapterStrategy",
    "adapt",
    "call_after",
    "call_before",
    "check_precision",
    "check_same",
    "destroy_process_group",
    "gather",
]

#: Lightning's strategies, the special before the general, and what this package needs of them.
_ADAPTED: Mapping[type[Any], type[Any]] = {
    DeepSpeedStrategy: DeepSpeedAdapterStrategy,
    FSDPStrategy: FSDPAdapterStrategy,
    ModelParallelStrategy: FSDP2AdapterStrategy,
    DDPStrategy: AdapterStrategy,
    SingleDeviceStrategy: AdapterStrategy,
}


def adapt(strategy: Strategy) -> AdapterStrategy:
    """Give a trainer's strategy the methods that this package needs.

    The instance gets a subclass of its own class, so that it may be any user's subclass of Lightning's strategies.

    Raises:
        BeftError: If the strategy is none of those that are known to work.
    """
    if isinstance(strategy, AdapterStrategy):
        return strategy
    ours = next((ours for theirs, ours in _ADAPTED.items() if isinstance(strategy, theirs)), None)
    if ours is None:
        raise BeftError(
            f"{type(strategy).__name__} cannot train a choice of biases; use one of: "
            f"{', '.join(known.__name__ for known in _ADAPTED)}."
        )
    theirs = type(strategy)
    strategy.__class__ = type(theirs.__name__, (ours, theirs), {"__module__": theirs.__module__})
    assert isinstance(strategy, AdapterStrategy)
    return strategy
