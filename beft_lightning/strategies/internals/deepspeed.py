"""Private names of DeepSpeed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

#: Stands among the modules that use a parameter; DeepSpeed releases a parameter that no module uses.
_IN_USE = "scoring"


def is_partitioned(parameter: Tensor) -> bool:
    """Return whether ZeRO-3 has divided the parameter among the processes."""
    return hasattr(parameter, "ds_id")


def partitioned_shape(parameter: Any) -> tuple[int, ...]:
    """Return the shape of a parameter of which this process has a part (ZeRO-3)."""
    return tuple(parameter.ds_shape)


@contextmanager
def gathered_throughout(engine: Any, parameters: Sequence[Any]) -> Iterator[None]:
    """Hold parameters whole on every process, for several steps of a ZeRO-3 engine; then destroy the engine.

    ``deepspeed.zero.GatheredParameters`` alone is not enough: each forward pass would release them again.
    """
    import deepspeed

    try:
        with deepspeed.zero.GatheredParameters(parameters):
            for parameter in parameters:
                parameter.ds_active_sub_modules.add(_IN_USE)
            try:
                yield
            finally:
                for parameter in parameters:
                    parameter.ds_active_sub_modules.clear()
    finally:
        # The last steps leave frozen weights gathered, which the fit's own engine would take for whole ones.
        engine.optimizer.partition_all_parameters()
        engine.destroy()
