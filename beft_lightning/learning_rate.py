"""The learning rate of an optimizer and of its schedulers."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from beft_lightning.errors import BeftError

#: Learning rates in a parameter group: now, and where schedulers start, end and peak.
_KEYS = ("lr", "initial_lr", "max_lr", "min_lr")


def rate_of(optimizer: Optimizer) -> float:
    """Return the learning rate of an optimizer's first group, before any scheduler has changed it.

    Raises:
        BeftError: If its groups have no ``lr``.
    """
    if any("lr" not in group for group in optimizer.param_groups):
        raise BeftError(f"the groups of {type(optimizer).__name__} have no `lr`, so that no learning rate can be set.")
    group = optimizer.param_groups[0]
    return float(group.get("initial_lr", group["lr"]))


def set_rate(optimizer: Optimizer, rate: float, schedulers: Iterable[Any] = ()) -> None:
    """Give an optimizer another learning rate; groups and schedulers keep their proportions.

    Args:
        optimizer: The optimizer.
        rate: The new learning rate of its first group.
        schedulers: Its schedulers, which remember the rates that they start from.

    Raises:
        BeftError: If the optimizer has no learning rate, or one of zero, to which others have no proportion.
    """
    before = rate_of(optimizer)
    if not before > 0:
        raise BeftError(f"the learning rate of {type(optimizer).__name__} is {before:g}: it has to start above 0.")

    def scaled(value: float) -> float:
        return rate if value == before else rate * (value / before)  # Exact for the first group.

    for group in optimizer.param_groups:
        for key in _KEYS:
            if isinstance(value := group.get(key), Tensor):
                value.fill_(scaled(float(value)))
            elif value is not None:
                group[key] = scaled(value)
    optimizer.defaults["lr"] = rate
    for scheduler in schedulers:
        if hasattr(scheduler, "base_lrs"):
            scheduler.base_lrs = [scaled(float(value)) for value in scheduler.base_lrs]
