"""Both kinds of FSDP."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from beft_lightning.bias.heads import head_parameters
from beft_lightning.errors import ArchitectureError, BeftError
from beft_lightning.parameters import named_parameters
from beft_lightning.strategies.adapter import ShardedAdapterStrategy


class FSDPAdapterStrategy(ShardedAdapterStrategy, FSDPStrategy):
    """FSDP of the first kind, which flattens parameters: what may be trained stays outside, whole on every process."""

    select_before = "setup_optimizers"
    _outside: Sequence[nn.Parameter] = ()
    _wrapper: nn.Module | None = None

    def _setup_model(self, model: nn.Module) -> nn.Module:
        assert self.lightning_module is not None
        if self._wrapper is not None and self._wrapper.module is model:
            return self._wrapper  # the trainer's fit has wrapped it; now it evaluates
        try:
            head = set(head_parameters(self.lightning_module))
        except ArchitectureError:  # no model of transformers
            head = set()
        # All vectors: norms are kept in fp32 like the biases, and flat parameters have one precision.
        self._outside = [p for n, p in self.lightning_module.named_parameters() if p.ndim < 2 or n in head]
        for parameter in self._outside:
            parameter.data = parameter.data.to(self.root_device)
        generate_together(self.lightning_module)
        self.kwargs["ignored_states"] = self._outside
        self.kwargs.setdefault("auto_wrap_policy", ModuleWrapPolicy(layer_classes(self.lightning_module)))
        # Norms of flattened gradients need all processes; these gradients are whole.
        clip = Precision.clip_grad_by_norm.__get__(self.precision_plugin)
        self.precision_plugin.__dict__["clip_grad_by_norm"] = clip
        self._wrapper = super()._setup_model(model)
        return self._wrapper

    def setup_optimizers(self, trainer: Trainer) -> None:
        """Make the optimizers.

        Raises:
            BeftError: If a weight matrix of the pretrained model is to be trained.
        """
        assert self.lightning_module is not None
        outside = set(self._outside)
        for name, parameter in named_parameters(self.lightning_module):
            if parameter.requires_grad and parameter not in outside:
                raise BeftError(
                    f"under FSDPStrategy, vectors (biases and norms) and the head can be trained, and {name!r} is "
                    "neither: freeze it, or use ModelParallelStrategy (FSDP2), DDPStrategy or DeepSpeedStrategy."
                )
        super().setup_optimizers(trainer)

    @contextmanager
    def scoring(self, trained: Sequence[nn.Parameter]) -> Iterator[None]:
        """The model is on its devices."""
        yield

    def scoring_step(self, *arguments: Any) -> Any:
        """The module's ``training_step`` inside the wrapper's ``forward``, which gathers the weights."""
        return self.training_step(*arguments)

    def finish_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """FSDP leaves alone what is outside."""
        self.average_gradients(parameters)


class FSDP2AdapterStrategy(ShardedAdapterStrategy, ModelParallelStrategy):
    """FSDP of the second kind, where each parameter is a tensor that knows its parts."""

    select_before = "setup_optimizers"

    @property
    def quantized(self) -> tuple[str, ...]:
        """4-bit weights, whose scales stay beside the parts."""
        return ("nf4",)

    def setup(self, trainer: Trainer) -> None:
        """Shard the model, unless the module's ``configure_model`` has done so.

        Raises:
            BeftError: If it is not to be sharded over all processes, or a part of it was made after sharding.
        """
        assert self.lightning_module is not None
        sharded = [child for child in self.lightning_module.modules() if isinstance(child, FSDPModule)]
        for child in sharded:
            child.reshard()  # an evaluation leaves the outermost weights gathered
        if not sharded:
            self._shard(self.lightning_module)
        if plain := [n for n, p in self.lightning_module.named_parameters() if not isinstance(p, DTensor)]:
            raise BeftError(
                f"the model is sharded, but not its {plain[0]!r}, and the two cannot be trained together. Call "
                "fully_shard() for it in configure_model, or leave all sharding to this package. A bias that is added "
                "where the model has none has to be there before: see beft_lightning.bias.add_missing_biases()."
            )
        super().setup(trainer)

    def use_all_processes(self) -> None:
        """Shard over all processes; left to itself, Lightning plans to split the layers over a node's devices."""
        assert self.lightning_module is not None
        self._data_parallel_size, self._tensor_parallel_size = self.world_size, 1
        self._device_mesh = init_device_mesh(
            self.root_device.type, (self.world_size, 1), mesh_dim_names=("data_parallel", "tensor_parallel")
        )
        self.lightning_module._device_mesh = self._device_mesh

    def _shard(self, module: LightningModule) -> None:
        data, tensor = self.device_mesh["data_parallel"], self.device_mesh["tensor_parallel"]
        if tensor.size() > 1:
            raise BeftError(
                f"{type(self).__name__} would split each layer over {tensor.size()} devices (tensor_parallel_size), "
                f"which takes a plan for each architecture: set data_parallel_size to {self.world_size} and "
                "tensor_parallel_size to 1, which shards the model over all processes."
            )
        generate_together(module)
        layers = tuple(layer_classes(module))
        for child in [child for child in module.modules() if isinstance(child, layers)]:
            fully_shard(child, mesh=data)
        for child in module.children():
            if next(child.parameters(), None) is not None:
                fully_shard(child, mesh=data)

    @contextmanager
    def scoring(self, trained: Sequence[nn.Parameter]) -> Iterator[None]:
        """The model is on its devices."""
        yield

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """FSDP has done so in the backward pass."""

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Put each process's part of the trained values into the module."""
        assert self.lightning_module is not None
        parameters = dict(self.lightning_module.named_parameters())
        parts = {n: _like(value, parameters.get(n)) for n, value in checkpoint["state_dict"].items()}
        super().load_model_state_dict({"state_dict": parts})

    def _load_optimizer_states(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            state = {i: {k: _like(v, parameters[i]) for k, v in of_one.items()} for i, of_one in saved["state"].items()}
            optimizer.load_state_dict({**saved, "state": state})


def layer_classes(module: nn.Module) -> set[type[nn.Module]]:
    """The classes of the layers that transformers keeps together."""
    models = [child for child in module.modules() if isinstance(child, PreTrainedModel)]
    names = {name for model in models for name in model._no_split_modules or ()}
    return {type(child) for child in module.modules() if type(child).__name__ in names}


def generate_together(module: nn.Module) -> None:
    """Let processes that have finished their texts go on until all have: each step gathers weights from all of them."""
    for child in module.modules():
        if isinstance(child, PreTrainedModel):
            child.__dict__["_is_fsdp_managed_module"] = True


def _like(value: Any, parameter: Tensor | None) -> Any:
    """This process's part of a value of a parameter, or of its optimizer's state; a step count stays as it is."""
    if isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape:
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value
