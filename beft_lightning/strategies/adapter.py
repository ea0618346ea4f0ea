"""What this package asks of a strategy, and does wherever the model is in one piece or comes back so."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import Strategy
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from beft_lightning.checkpoint import local_file
from beft_lightning.errors import CheckpointError
from beft_lightning.parameters import full_tensor, named_parameters, numel, persistent_buffers


class AdapterStrategy(Strategy):
    """What this package asks of a strategy; as it stands, for strategies where each process has the whole model."""

    #: The term is selected right before this method of the strategy.
    select_before = "setup"
    #: Number of values of the model, counted before anything is sharded.
    total_parameters = 0

    @property
    def quantized(self) -> tuple[str, ...]:
        """The precisions of bitsandbytes that frozen weights may have: all where they are whole."""
        return ("int8", "nf4")

    @property
    def recomputes(self) -> bool:
        """Whether layers can be computed again in the backward pass."""
        return True

    def use_all_processes(self) -> None:
        """Make ready for a module that leaves all sharding to this package."""

    def setup(self, trainer: Trainer) -> None:
        """Count the parameters while they are whole, then wrap the model."""
        assert self.lightning_module is not None
        self.total_parameters = sum(map(numel, self.lightning_module.parameters()))
        super().setup(trainer)

    @contextmanager
    def scoring(self, trained: Sequence[nn.Parameter]) -> Iterator[None]:
        """Have the model ready for training steps that only :meth:`average_gradients` and change ``trained``."""
        assert self.lightning_module is not None
        self.lightning_module.to(self.root_device)
        yield

    def scoring_step(self, *arguments: Any) -> Any:
        """The module's own ``training_step``."""
        assert self.lightning_module is not None
        return self.lightning_module.training_step(*arguments)

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average the gradients over the processes, in one message, so that all ranks take the same steps."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        mean = self.reduce(torch.cat([gradient.flatten() for gradient in gradients]), reduce_op="mean")
        for parameter, part in zip(parameters, mean.split([g.numel() for g in gradients]), strict=True):
            parameter.grad = part.view_as(parameter).clone()

    def finish_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Called before each optimizer step, for gradients that the strategy does not average itself."""

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint of any strategy; what is no local folder is left to Lightning, which reads remote ones."""
        return self._read_checkpoint(local_file(checkpoint_path), weights_only)

    def _read_checkpoint(self, path: Any, weights_only: bool | None) -> dict[str, Any]:
        return super().load_checkpoint(path, weights_only)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Continue with the optimizer's state.

        Raises:
            CheckpointError: If the checkpoint's is in DeepSpeed's own format.
        """
        if self.optimizers and not checkpoint["optimizer_states"]:
            raise CheckpointError(
                "this checkpoint was written under DeepSpeed, which alone can read its optimizer's state: resume with "
                "the same strategy and number of processes. Its trained values can be evaluated under any strategy."
            )
        self._load_optimizer_states(checkpoint)

    def _load_optimizer_states(self, checkpoint: Mapping[str, Any]) -> None:
        super().load_optimizer_state_dict(checkpoint)


class ShardedAdapterStrategy(AdapterStrategy):
    """A strategy where each process has a part of the model: checkpoints hold the trained values, whole."""

    @property
    def quantized(self) -> tuple[str, ...]:
        """None: an int8 weight loses its scales in sharding."""
        return ()

    # These two pass over the strategies' own formats.
    def _read_checkpoint(self, path: Any, weights_only: bool | None) -> dict[str, Any]:
        return Strategy.load_checkpoint(self, path, weights_only)

    def _load_optimizer_states(self, checkpoint: Mapping[str, Any]) -> None:
        Strategy.load_optimizer_state_dict(self, checkpoint)

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """No: what the checkpoint has trained is needed before."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Yes: the optimizer's state is an ordinary part of the checkpoint."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The trained values and the buffers; nothing of the frozen weights is gathered."""
        assert self.lightning_module is not None
        values = {n: self.trained_value(p) for n, p in named_parameters(self.lightning_module) if p.requires_grad}
        return values | persistent_buffers(self.lightning_module)

    def trained_value(self, parameter: nn.Parameter) -> Tensor:
        """The whole of a trained parameter, as precise as the optimizer knows it."""
        return full_tensor(parameter)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimizer's state, whole on each process."""
        state: dict[str, Any] = apply_to_collection(optimizer.state_dict(), DTensor, full_tensor)
        return state

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write one file, as on a single device."""
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Put the trained values into the module."""
        Strategy.load_model_state_dict(self, checkpoint, strict=False)
