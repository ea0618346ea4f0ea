"""Train a module before its fit, and restore everything afterwards."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from beft_lightning.errors import ScoringError
from beft_lightning.scoring.plain_state import Snapshot
from beft_lightning.strategies.internals.deepspeed import is_partitioned
from beft_lightning.strategies.internals.torch import version


@contextmanager
def leave_no_trace(trainer: Trainer, module: LightningModule, trained: list[nn.Parameter]) -> Iterator[Snapshot]:
    """Train ``trained`` inside this context; on leaving, everything is as it was.

    Restored are weights, gradients' absence, what is trainable, the global random generators, and the module's and its
    data module's plain state: buffers, metrics, counters, generators. ``self.log`` does nothing inside. Not restored is
    what lies outside of the process, in global variables, and in objects that are more than plain state.

    Args:
        trainer: The trainer of the module. It logs nothing.
        module: The module to train.
        trained: Some of its parameters.

    Yields:
        The snapshot that is restored, to which the sources of data can be added.

    Raises:
        ScoringError: If frozen parameters were changed.
    """
    optimizers, schedulers = trainer.strategy.optimizers, trainer.strategy.lr_scheduler_configs
    snapshot = Snapshot()
    snapshot.add(module, trainer.datamodule)  # type: ignore[attr-defined]
    parameters = list(dict.fromkeys(p for owner in snapshot.modules for p in owner.parameters(recurse=False)))
    requires_grad = {parameter: parameter.requires_grad for parameter in parameters}
    values = {parameter: parameter.detach().clone() for parameter in trained}
    frozen = FrozenValues(parameter for parameter in parameters if parameter not in values)
    with isolate_rng(), _silent_logging(trainer):
        try:
            for parameter in parameters:
                parameter.requires_grad_(parameter in values)
            yield snapshot
            frozen.check()
        finally:
            trainer.strategy.optimizers, trainer.strategy.lr_scheduler_configs = optimizers, schedulers
            snapshot.restore()
            with torch.no_grad():
                for parameter, value in values.items():
                    parameter.copy_(value)
            for parameter, trainable in requires_grad.items():
                parameter.grad = None
                parameter.requires_grad_(trainable)


class FrozenValues:
    """The state of parameters that must not change.

    A tensor's version counts changes in place; those through ``.data`` are seen in a sample of its values.

    Args:
        parameters: The parameters, whole or sharded.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._before = [(parameter, version(parameter), _sample(parameter)) for parameter in parameters]

    def check(self) -> None:
        """Check that the parameters are as they were.

        Raises:
            ScoringError: If some are not.
        """
        changed = [p for p, number, sample in self._before if version(p) != number or _differs(sample, _sample(p))]
        if changed:
            raise ScoringError(
                f"`training_step` changes {len(changed)} frozen parameters in place (an average of weights?), "
                "which scoring cannot take back: use approach 'fixed', or score another module."
            )


def _sample(parameter: nn.Parameter) -> Tensor | None:
    """Return 64 values from all over a parameter; None if it is sharded, and gathered and released meanwhile."""
    if isinstance(parameter, DTensor) or is_partitioned(parameter) or not parameter.numel() or parameter.is_meta:
        return None
    places = torch.linspace(0, parameter.numel() - 1, min(64, parameter.numel()), dtype=torch.float64).long()
    indices = torch.unravel_index(places.to(parameter.device), parameter.shape)
    return parameter.detach()[indices].cpu().double()


def _differs(before: Tensor | None, after: Tensor | None) -> bool:
    if before is None or after is None or before.shape != after.shape:
        return False
    return not torch.allclose(before, after, rtol=0, atol=0, equal_nan=True)


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; each submodule's own mode again afterwards."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, training in modes.items():
            child.training = training


@contextmanager
def _silent_logging(trainer: Trainer) -> Iterator[None]:
    """Make ``self.log`` and ``self.log_dict`` do nothing: the fit's results are not set up yet.

    They do so under ``Trainer(barebones=True)``, with a warning.
    """
    barebones, trainer.barebones = trainer.barebones, True
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*`self\.log\(\)` but `Trainer\(barebones=True\)`")
            yield
    finally:
        trainer.barebones = barebones
