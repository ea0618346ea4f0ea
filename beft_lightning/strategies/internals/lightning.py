"""Private names of Lightning."""

from collections.abc import Iterator
from typing import Any

from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.core.optimizer import _init_optimizers_and_lr_schedulers
from lightning.pytorch.plugins.io.wrapper import _WrappingCheckpointIO as WrappingCheckpointIO
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.trainer.connectors.data_connector import _DataLoaderSource, _request_dataloader
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from beft_lightning.strategies.internals.torch import drop_iterator


def requested_loaders(trainer: Trainer) -> Any:
    """Return what ``train_dataloader()`` returns, or the loaders given to ``fit``.

    Lightning records the arguments of loaders that are made here, to be able to add the distributed sampler.
    """
    return _request_dataloader(trainer.fit_loop._data_source)


class _Requested(_DataLoaderSource):
    """A source of training data that has been asked already."""

    def __init__(self, source: _DataLoaderSource, loaders: Any) -> None:
        super().__init__(source.instance, source.name)
        self.loaders = loaders

    def dataloader(self) -> Any:
        """Return the loaders."""
        return self.loaders


class TrainingData:
    """The training data as the fit is going to set it up, set up before.

    Lightning does so in ``fit_loop.run()``, which is after the optimizer is built. ``setup_data`` is also where it adds
    the distributed sampler, and where it starts the loaders' iterators.

    Args:
        trainer: A trainer inside ``fit``.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._before = [(owner, dict(vars(owner))) for owner in (trainer, trainer.fit_loop)]

    def set_up(self, loaders: Any) -> None:
        """Start the loaders, :func:`requested_loaders`."""
        loop = self._trainer.fit_loop
        loop._data_source = _Requested(loop._data_source, loaders)
        loop._combined_loader = loop._data_fetcher = None
        for loader in flattened(loaders):
            drop_iterator(loader)
        loop.setup_data()

    def epoch(self, number: int) -> Iterator[Any]:
        """Yield the batches of an epoch of the fit, counted from where the fit begins."""
        loop = self._trainer.fit_loop
        assert loop._combined_loader is not None
        assert loop._data_fetcher is not None
        for loader in loop._combined_loader.flattened:
            _set_sampler_epoch(loader, self._trainer.current_epoch + number)
        if number:
            iter(loop._data_fetcher)
        given = 0
        while given < loop.max_batches and (fetched := next(loop._data_fetcher, None)) is not None:
            given += 1
            yield fetched[0]

    def close(self) -> None:
        """End the loaders' workers, and leave it to the fit to set its data up."""
        if fetcher := self._trainer.fit_loop._data_fetcher:
            fetcher.teardown()
        for owner, before in self._before:
            vars(owner).update(before)


def flattened(loaders: Any) -> list[Any]:
    """Return the single loaders of any collection of them."""
    return (loaders if isinstance(loaders, CombinedLoader) else CombinedLoader(loaders)).flattened


def before_batch_transfer(module: LightningModule, batch: Any) -> Any:
    """Apply the hook ``on_before_batch_transfer`` of the module or the DataModule, whichever has it.

    ``Strategy.batch_to_device`` applies the two hooks that follow, and not this one.
    """
    return module._on_before_batch_transfer(batch, dataloader_idx=0)


def cluster_environment(trainer: Trainer) -> ClusterEnvironment | None:
    """Return the environment that a trainer runs in.

    Strategies for a single device do not say, and whether SLURM's jobs are requeued is known to the instance alone.
    """
    return trainer._accelerator_connector.cluster_environment


def replace_wrapped(wrapper: WrappingCheckpointIO, inner: CheckpointIO) -> None:
    """Give a wrapper such as AsyncCheckpointIO another CheckpointIO to write with.

    The public setter takes the first one only, and Lightning has given it its own by then.
    """
    wrapper._checkpoint_io = inner


def averaged_model(averaging: WeightAveraging) -> AveragedModel | None:
    """Return the average of a module; how it is computed cannot be changed from outside."""
    return averaging._average_model


def step_inside_forward(strategy: Strategy, module: LightningModule, *arguments: Any) -> Any:
    """Run the module's ``training_step`` inside its ``forward``, where DeepSpeed's hooks are.

    Lightning does so in ``Strategy.training_step``, but with the engine, which switches off autocast.
    """
    return strategy._forward_redirection(module, module, "training_step", *arguments)


def configured_optimizers(module: LightningModule) -> tuple[list[Optimizer], list[LRSchedulerConfig]]:
    """Return what ``configure_optimizers`` gives, in whichever of its forms, without keeping it in the strategy.

    ``Strategy.setup_optimizers`` does the same and replaces the strategy's own.
    """
    return _init_optimizers_and_lr_schedulers(module)
