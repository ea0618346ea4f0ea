"""Train a module before its fit, and restore everything afterwards."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn
from torchmetrics import Metric, MetricCollection

from beft_lightning.errors import ScoringError
from beft_lightning.strategies.internals import version


@contextmanager
def leave_no_trace(trainer: Trainer, module: LightningModule, trained: list[nn.Parameter]) -> Iterator[None]:
    """Train ``trained`` inside this context; on leaving, everything is as it was.

    Args:
        trainer: Its dataloaders' random generators are restored, and it logs nothing.
        module: The module to train.
        trained: Some of its parameters.

    Raises:
        ScoringError: If frozen parameters were changed.

    Restored are weights, buffers, gradients' absence, what is trainable, torchmetrics' states, the random number
    generators (global ones and those of the dataloaders), and ``self.log``, which does nothing inside. Not restored is
    what a ``training_step`` keeps in plain attributes, and the position of an iterable dataset that remembers one.
    """
    requires_grad = {parameter: parameter.requires_grad for parameter in module.parameters()}
    values = {parameter: parameter.detach().clone() for parameter in trained}
    # By owner and name, since a module may put a new tensor in the place of a buffer.
    buffers = [
        (owner, name, buffer, buffer.detach().clone())
        for owner in module.modules()
        for name, buffer in owner.named_buffers(recurse=False)
    ]
    versions = {parameter: version(parameter) for parameter in requires_grad if parameter not in values}
    optimizers, schedulers = trainer.strategy.optimizers, trainer.strategy.lr_scheduler_configs
    with ExitStack() as stack:
        stack.enter_context(isolate_rng())
        stack.enter_context(_restored_generators(trainer))
        stack.enter_context(_copied_metrics(module))
        stack.enter_context(_silent_logging(trainer))
        try:
            for parameter in requires_grad:
                parameter.requires_grad_(parameter in values)
            yield
            if changed := [p for p, before in versions.items() if version(p) != before]:
                raise ScoringError(
                    f"`training_step` changes {len(changed)} frozen parameters in place (an average of weights?), "
                    "which scoring cannot take back: use approach 'fixed', or score another module."
                )
        finally:
            trainer.strategy.optimizers, trainer.strategy.lr_scheduler_configs = optimizers, schedulers
            with torch.no_grad():
                for parameter, value in values.items():
                    parameter.copy_(value)
                for owner, name, buffer, value in buffers:
                    setattr(owner, name, buffer.copy_(value))
            for parameter, trainable in requires_grad.items():
                parameter.grad = None
                parameter.requires_grad_(trainable)


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
def _restored_generators(trainer: Trainer) -> Iterator[None]:
    """Put back the private random generators of the dataloaders and their samplers."""
    generators = []
    for loader in CombinedLoader(trainer.train_dataloader).flattened:
        batch_sampler = getattr(loader, "batch_sampler", None)
        for owner in (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None)):
            if isinstance(generator := getattr(owner, "generator", None), torch.Generator):
                generators.append((generator, generator.get_state()))
    try:
        yield
    finally:
        for generator, state in generators:
            generator.set_state(state)


@contextmanager
def _copied_metrics(module: nn.Module) -> Iterator[None]:
    """Let the metrics inside ``module`` be updated as copies."""
    owners = [
        (parent, name, child)
        for parent in module.modules()
        if not isinstance(parent, Metric | MetricCollection)
        for name, child in parent.named_children()
        if isinstance(child, Metric | MetricCollection)
    ]
    for parent, name, child in owners:
        parent.register_module(name, copy.deepcopy(child))
    try:
        yield
    finally:
        for parent, name, child in owners:
            parent.register_module(name, child)


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
