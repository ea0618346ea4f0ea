"""FSDP of the first kind, which flattens parameters."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import FSDPPrecision, Precision
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from transformers.modeling_layers import GradientCheckpointingLayer

from beft_lightning.bias.heads import head_parameters
from beft_lightning.errors import ArchitectureError, BeftError
from beft_lightning.parameters import named_parameters
from beft_lightning.strategies.sharded import ShardedAdapterStrategy


class FSDPAdapterPrecision(FSDPPrecision):
    """FSDP's precision, with gradient clipping by norm: the trained parameters are whole on every process."""

    clip_grad_by_norm = Precision.clip_grad_by_norm


class FSDPAdapterStrategy(ShardedAdapterStrategy, FSDPStrategy):
    """FSDP that leaves outside what may be trained: vectors and the head, whole on every process.

    Flat parameters have one precision, and the norm of their gradients needs all processes.
    """

    _outside: Sequence[nn.Parameter] = ()
    _wrapper: nn.Module | None = None
    _wrap_policy: Any = ModuleWrapPolicy({GradientCheckpointingLayer})

    def prepare_model(self) -> None:
        """Name the parameters that stay outside, unless the model is wrapped already."""
        if self._wrapper is not None and self._wrapper.module is self.lightning_module:
            # The trainer's fit has wrapped it, and now it evaluates.
            self.model = self._wrapper
            self.kwargs.pop("auto_wrap_policy", None)
            return
        assert self.lightning_module is not None
        try:
            head = set(head_parameters(self.lightning_module))
        except ArchitectureError:  # no model of transformers
            head = set()
        # Norms, too: they are kept in fp32 like the biases.
        self._outside = [p for n, p in self.lightning_module.named_parameters() if p.ndim < 2 or n in head]
        for parameter in self._outside:
            parameter.data = parameter.data.to(self.root_device)
        self.kwargs["ignored_states"] = self._outside
        self._wrap_policy = self.kwargs.setdefault("auto_wrap_policy", self._wrap_policy)
        if type(self.precision_plugin) is FSDPPrecision:  # A user's own plugin clips as it says.
            plugin = FSDPAdapterPrecision(self.precision_plugin.precision)  # type: ignore[arg-type]
            plugin.scaler = self.precision_plugin.scaler
            self.precision_plugin = plugin

    def setup(self, trainer: Trainer) -> None:
        """Wrap the model, and keep the wrapper for a later evaluation of the same module."""
        super().setup(trainer)
        self._wrapper = self.model

    def setup_optimizers(self, trainer: Trainer) -> None:
        """Make the optimizers.

        Raises:
            BeftError: If a weight matrix of the pretrained model is to be trained.
        """
        self._run_actions("optimizers")
        self._check_outside("trained")
        super().setup_optimizers(trainer)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the trained values and the buffers.

        Raises:
            BeftError: If a weight matrix is not frozen, of which this process has a part.
        """
        self._check_outside("saved")
        return super().lightning_module_state_dict()

    def _check_outside(self, verb: str) -> None:
        assert self.lightning_module is not None
        outside = set(self._outside)
        for name, parameter in named_parameters(self.lightning_module):
            if parameter.requires_grad and parameter not in outside:
                raise BeftError(
                    f"under FSDPStrategy, vectors (biases and norms) and the head can be {verb}, and {name!r} is "
                    "neither: freeze it, or use ModelParallelStrategy (FSDP2), DDPStrategy or DeepSpeedStrategy."
                )

    def post_backward(self, closure_loss: Tensor) -> None:
        """Average the gradients of the parameters outside, which FSDP leaves alone.

        Averaging is linear: gradients that accumulate over several batches may be averaged after each of them.
        """
        super().post_backward(closure_loss)
        self.average_gradients([parameter for parameter in self._outside if parameter.requires_grad])

    @contextmanager
    def scoring(self, trained: Sequence[nn.Parameter]) -> Iterator[None]:
        """Leave the model as it is: it is on its devices."""
        yield

    def scoring_step(self, *arguments: Any) -> Any:
        """Run the module's ``training_step`` inside the wrapper's ``forward``, which gathers the weights."""
        return self.training_step(*arguments)
