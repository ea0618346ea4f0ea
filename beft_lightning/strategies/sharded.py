"""Strategies where each process has a part of the model."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import Strategy
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from beft_lightning.adapter import trained_names
from beft_lightning.parameters import full_tensor, named_parameters
from beft_lightning.strategies.adapter import AdapterStrategy
from beft_lightning.strategies.internals.torch import persistent_buffers


class ShardedAdapterStrategy(AdapterStrategy):
    """A strategy where each process has a part of the model: checkpoints hold the full trained tensors.

    Where a method names ``Strategy``, it passes over the format of the strategy that it adapts.
    """

    _sharded: LightningModule | None = None

    def setup(self, trainer: Trainer) -> None:
        """Set up the model, and note which one is sharded from here on."""
        super().setup(trainer)
        self._sharded = self.lightning_module

    def forget_fingerprint(self) -> None:
        """Make the fingerprint anew, unless the module was sharded in an earlier run, with the same frozen weights."""
        if self._fingerprint is None or self._sharded is not self.lightning_module:
            super().forget_fingerprint()

    def release(self) -> None:
        """Drop all actions. The class stays.

        The model is still sharded, and with Lightning's own method, ``trainer.save_checkpoint`` after the fit would
        gather and write the frozen weights (FSDP), or write what only DeepSpeed can read.
        """
        self._actions = {}

    @property
    def quantized(self) -> tuple[str, ...]:
        """None: an int8 weight loses its scales in sharding."""
        return ()

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """No: what the checkpoint has trained is needed before."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Yes: the optimizer's state is an ordinary part of the checkpoint."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the trained values and the buffers; no frozen weight is gathered."""
        assert self.lightning_module is not None
        trained = set(trained_names(self.lightning_module))
        values = {n: self.trained_value(p) for n, p in named_parameters(self.lightning_module) if n in trained}
        return values | persistent_buffers(self.lightning_module)

    def trained_value(self, parameter: nn.Parameter) -> Tensor:
        """Return the full tensor of a trained parameter, as precise as the optimizer has it."""
        return full_tensor(parameter)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the optimizer's state with full tensors, on each process."""
        state: dict[str, Any] = apply_to_collection(optimizer.state_dict(), DTensor, full_tensor)
        return state

    def _load_values(self, checkpoint: Mapping[str, Any], strict: bool) -> None:
        """Put the trained values into the module."""
        Strategy.load_model_state_dict(self, checkpoint, strict=False)

    def _write_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any) -> None:
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def _read_checkpoint(self, path: Any, weights_only: bool | None) -> dict[str, Any]:
        return Strategy.load_checkpoint(self, path, weights_only)

    def _load_optimizer_states(self, checkpoint: Mapping[str, Any]) -> None:
        Strategy.load_optimizer_state_dict(self, checkpoint)
