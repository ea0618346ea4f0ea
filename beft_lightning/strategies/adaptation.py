"""Give a trainer's strategy the methods that this package needs, and take them back."""

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
from beft_lightning.strategies.adapter import AdapterStrategy, adapted_class
from beft_lightning.strategies.deepspeed import DeepSpeedAdapterStrategy
from beft_lightning.strategies.fsdp import FSDPAdapterStrategy
from beft_lightning.strategies.fsdp2 import FSDP2AdapterStrategy

#: Lightning's strategies, the special before the general, and the class that adapts each.
_ADAPTERS: Mapping[type[Any], type[Any]] = {
    DeepSpeedStrategy: DeepSpeedAdapterStrategy,
    FSDPStrategy: FSDPAdapterStrategy,
    ModelParallelStrategy: FSDP2AdapterStrategy,
    DDPStrategy: AdapterStrategy,
    SingleDeviceStrategy: AdapterStrategy,
}


def adapt(strategy: Strategy) -> AdapterStrategy:
    """Give a trainer's strategy the methods that this package needs, until :func:`release`.

    The instance gets a subclass of its own class, so that it may be of any user's subclass of Lightning's strategies.
    Properties that Lightning reads, such as ``restore_checkpoint_after_setup``, leave no other way.

    Raises:
        BeftError: If the strategy is none of those that are known to work.
    """
    if isinstance(strategy, AdapterStrategy):
        return strategy
    ours: type | None = next((ours for theirs, ours in _ADAPTERS.items() if isinstance(strategy, theirs)), None)
    if ours is None:
        raise BeftError(
            f"{type(strategy).__name__} cannot train a choice of biases; use one of: "
            f"{', '.join(known.__name__ for known in _ADAPTERS)}."
        )
    original: type = type(strategy)
    strategy.__class__ = adapted_class(ours, original)
    assert isinstance(strategy, AdapterStrategy)
    return strategy


def release(strategy: Strategy) -> None:
    """Undo :func:`adapt` at the end of a run: for ``teardown`` of whatever has called it.

    After an exception, the strategy releases itself. Sharded strategies stay adapted; see
    :meth:`~beft_lightning.strategies.sharded.ShardedAdapterStrategy.release`.
    """
    if isinstance(strategy, AdapterStrategy):
        strategy.release()
