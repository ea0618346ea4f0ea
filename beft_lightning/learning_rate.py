"""The learning rate of an optimizer and of its schedulers."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from beft_lightning.errors import BeftError
from beft_lightning.strategies.internals.torch import inner_schedulers

#: Learning rates in a parameter group: now, and where schedulers start, end and peak.
_KEYS = ("lr", "initial_lr", "max_lr", "min_lr")
#: Lists of learning rates in a scheduler, one for each group: where it starts and peaks.
_LISTS = ("base_lrs", "max_lrs")


def rate_of(optimizer: Optimizer, schedulers: Sequence[Any] = ()) -> float:
    """Return the learning rate of an optimizer's first group: the peak of a cycle, or else the rate at the start.

    Args:
        optimizer: The optimizer.
        schedulers: Its schedulers.

    Raises:
        BeftError: If its groups have no ``lr``.
    """
    return _peaks(optimizer, schedulers)[0]


def fit_rate(module: LightningModule, default: float) -> float:
    """Return the learning rate of a module's fit, which a race may have chosen.

    Args:
        module: The module.
        default: What to return outside a fit, where there is no trainer or no optimizer.

    Raises:
        BeftError: If the groups of its optimizer have no ``lr``.
    """
    try:
        trainer = module.trainer
    except RuntimeError:  # Lightning's, for a module without one.
        return default
    schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
    return rate_of(trainer.optimizers[0], schedulers) if trainer.optimizers else default


def hold_at_peak(optimizer: Optimizer, schedulers: Sequence[Any] = ()) -> None:
    """Set the learning rate of each group to its peak, to train without the schedulers and their warm-up.

    Args:
        optimizer: The optimizer.
        schedulers: Its schedulers, which are not going to run.

    Raises:
        BeftError: If its groups have no ``lr``.
    """
    for group, peak in zip(optimizer.param_groups, _peaks(optimizer, schedulers), strict=True):
        _set(group, "lr", peak)


def set_rate(optimizer: Optimizer, rate: float, schedulers: Sequence[Any] = ()) -> None:
    """Give an optimizer another learning rate; groups and schedulers keep their proportions.

    Args:
        optimizer: The optimizer.
        rate: The new learning rate of its first group, as :func:`rate_of` gives it.
        schedulers: Its schedulers, which remember the rates that they start from.

    Raises:
        BeftError: If the optimizer has no learning rate, or one of zero, to which others have no proportion.
    """
    before = rate_of(optimizer, schedulers)
    if not before > 0:
        raise BeftError(f"the learning rate of {type(optimizer).__name__} is {before:g}: it has to start above 0.")

    def scaled(value: float) -> float:
        return rate if value == before else rate * (value / before)  # Exact for the first group.

    for group in optimizer.param_groups:
        for key in _KEYS:
            if key in group:
                _set(group, key, scaled(float(group[key])))
    optimizer.defaults["lr"] = rate
    for scheduler in _with_inner(schedulers):
        for name in _LISTS:
            if hasattr(scheduler, name):
                setattr(scheduler, name, [scaled(float(value)) for value in getattr(scheduler, name)])


def _peaks(optimizer: Optimizer, schedulers: Sequence[Any]) -> list[float]:
    """Return the peak of each group's learning rate."""
    groups = optimizer.param_groups
    if any("lr" not in group for group in groups):
        raise BeftError(f"the groups of {type(optimizer).__name__} have no `lr`, so that no learning rate can be set.")
    peaks = [float(group.get("max_lr", group.get("initial_lr", group["lr"]))) for group in groups]
    for scheduler in _with_inner(schedulers):
        peaks = [float(peak) for peak in getattr(scheduler, "max_lrs", peaks)]
    return peaks


def _set(group: dict[str, Any], key: str, rate: float) -> None:
    if isinstance(group[key], Tensor):
        group[key].fill_(rate)  # The optimizer may hold this very tensor.
    else:
        group[key] = rate


def _with_inner(schedulers: Iterable[Any]) -> Iterator[Any]:
    """Yield schedulers, and those that they run."""
    for scheduler in schedulers:
        yield scheduler
        yield from _with_inner(inner_schedulers(scheduler))
