"""Private names of Lightning, torch and DeepSpeed that this package cannot do without, each with the reason.

They may change with any release. ``tests/strategies/test_internals.py`` names the versions that were tested and fails
with one line when a name is gone; ``pyproject.toml`` excludes later minor versions.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.io.wrapper import _WrappingCheckpointIO as WrappingCheckpointIO
from lightning.pytorch.strategies import Strategy
from torch import Tensor, nn
from torch.utils.data import DataLoader

from beft_lightning.parameters import clean_name

#: Stands among the modules that use a parameter; DeepSpeed releases a parameter that no module uses.
_IN_USE = "scoring"


def set_up_training_data(trainer: Trainer) -> None:
    """Make the training dataloader now; the fit reuses it.

    Lightning makes it in ``fit_loop.run()``, which is after the optimizer is built. ``setup_data`` is also where it
    adds the distributed sampler.
    """
    trainer.fit_loop.setup_data()


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


class OwnIterator:
    """A dataloader's batches from workers of their own.

    Persistent workers belong to the one iterator of their dataloader, which is the fit's: if they had served another
    one before, their random numbers would go on from there.

    Args:
        loader: The dataloader.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return self.loader._get_iterator()

    def __len__(self) -> int:
        return len(self.loader)


def version(tensor: Tensor) -> int:
    """Return a number that grows whenever the tensor is changed in place.

    The alternative is a copy of all frozen weights.
    """
    return tensor._version


def persistent_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that belong into a checkpoint, by name.

    Only ``state_dict()`` leaves out the others, and under FSDP it gathers all weights.
    """
    return {
        clean_name(f"{prefix}{'.' if prefix else ''}{name}"): buffer
        for prefix, owner in module.named_modules()
        for name, buffer in owner.named_buffers(recurse=False)
        if name not in owner._non_persistent_buffers_set
    }


def step_inside_forward(strategy: Strategy, module: LightningModule, *arguments: Any) -> Any:
    """Run the module's ``training_step`` inside its ``forward``, where DeepSpeed's hooks are.

    Lightning does so in ``Strategy.training_step``, but with the engine, which switches off autocast.
    """
    return strategy._forward_redirection(module, module, "training_step", *arguments)


def is_partitioned(parameter: nn.Parameter) -> bool:
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
