"""Which object writes a strategy's checkpoints."""

from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.strategies import Strategy

from beft_lightning.checkpoint_io import AtomicCheckpointIO
from beft_lightning.strategies.internals.lightning import WrappingCheckpointIO, replace_wrapped


def use_atomic_checkpoints(strategy: Strategy) -> None:
    """Let a strategy write and read checkpoints with AtomicCheckpointIO in place of Lightning's TorchCheckpointIO.

    Any other CheckpointIO is the user's choice and stays. AsyncCheckpointIO and other wrappers keep their place, too:
    it is the one inside them that is replaced.
    """
    chosen = strategy.checkpoint_io
    if type(chosen) is TorchCheckpointIO:
        strategy.checkpoint_io = AtomicCheckpointIO()
    while isinstance(chosen, WrappingCheckpointIO):
        inner = chosen.checkpoint_io
        if type(inner) is TorchCheckpointIO:
            replace_wrapped(chosen, AtomicCheckpointIO())
        chosen = inner  # type: ignore[assignment]
