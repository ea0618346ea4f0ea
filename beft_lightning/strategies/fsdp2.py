"""FSDP of the second kind, where each parameter is a tensor that knows its parts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from beft_lightning.errors import BeftError
from beft_lightning.strategies.sharded import ShardedAdapterStrategy


class FSDP2AdapterStrategy(ShardedAdapterStrategy, ModelParallelStrategy):
    """FSDP2, which trains anything."""

    _mesh_of_all: DeviceMesh | None = None

    @property
    def quantized(self) -> tuple[str, ...]:
        """4-bit weights, whose scales stay beside the parts."""
        return ("nf4",)

    def use_all_processes(self) -> None:
        """Shard over all processes; left to itself, Lightning plans to split the layers over a node's devices."""
        self._mesh_of_all = init_device_mesh(
            self.root_device.type, (self.world_size, 1), mesh_dim_names=("data_parallel", "tensor_parallel")
        )

    @property
    def device_mesh(self) -> DeviceMesh:
        """The mesh of :meth:`use_all_processes`, or else the one that was asked for."""
        return super().device_mesh if self._mesh_of_all is None else self._mesh_of_all

    def prepare_model(self) -> None:
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

    def _shard(self, module: LightningModule) -> None:
        data, tensor = self.device_mesh["data_parallel"], self.device_mesh["tensor_parallel"]
        if tensor.size() > 1:
            raise BeftError(
                f"{type(self).__name__} would split each layer over {tensor.size()} devices (tensor_parallel_size), "
                f"which takes a plan for each architecture: set data_parallel_size to {self.world_size} and "
                "tensor_parallel_size to 1, which shards the model over all processes."
            )
        for layer in [child for child in module.modules() if isinstance(child, GradientCheckpointingLayer)]:
            fully_shard(layer, mesh=data)
        for child in module.children():
            if next(child.parameters(), None) is not None:
                fully_shard(child, mesh=data)

    @contextmanager
    def scoring(self, trained: Sequence[nn.Parameter]) -> Iterator[None]:
        """Leave the model as it is: it is on its devices."""
        yield

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Do nothing: FSDP has averaged them in the backward pass."""

    def _load_values(self, checkpoint: Mapping[str, Any], strict: bool) -> None:
        """Put each process's part of the trained values into the module."""
        assert self.lightning_module is not None
        parameters = dict(self.lightning_module.named_parameters())
        parts = {n: _like(value, parameters.get(n)) for n, value in checkpoint["state_dict"].items()}
        super()._load_values({"state_dict": parts}, strict)

    def _load_optimizer_states(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            state = {i: {k: _like(v, parameters[i]) for k, v in of_one.items()} for i, of_one in saved["state"].items()}
            optimizer.load_state_dict({**saved, "state": state})


def _like(value: Any, parameter: Tensor | None) -> Any:
    """Return this process's part of a parameter's value or optimizer state; a step count stays as it is."""
    if isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape:
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value
