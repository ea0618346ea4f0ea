"""What Lightning's strategies need to score, train and save a few vectors of a frozen model.

The biases and the head are a ten-thousandth of the model, so only the frozen weights are worth sharding over the
processes. All that differs between strategies is here: :func:`adapt` gives a trainer's strategy the few methods that the
rest of the package calls. Every strategy restores a checkpoint before it wraps the model, as the choice of what is
trained comes from there, and writes the trained values whole, so that any other strategy can read them.
"""

from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    Strategy,
)
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from transformers import PreTrainedModel

from beft_lightning.bias import head_parameters
from beft_lightning.errors import BeftError, CheckpointError

#: The file with everything but the optimizer's state in a checkpoint that is a folder (DeepSpeed).
ADAPTER_FILE = "adapter.ckpt"


def named_parameters(module: nn.Module, *, remove_duplicate: bool = True) -> Iterator[tuple[str, nn.Parameter]]:
    """``module.named_parameters()`` under the names it has without FSDP's wrappers."""
    for name, parameter in module.named_parameters(remove_duplicate=remove_duplicate):
        yield clean_name(name), parameter


def clean_name(name: str) -> str:
    """A parameter's name without FSDP's wrappers."""
    return name.replace("_fsdp_wrapped_module.", "")


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor of which a process may hold a part; all processes must ask for it together."""
    if isinstance(tensor, DTensor):
        return tensor.detach().full_tensor()
    if tensor.numel() != getattr(tensor, "ds_numel", tensor.numel()):
        import deepspeed

        with deepspeed.zero.GatheredParameters([tensor]):
            return tensor.detach().clone()
    return tensor.detach()


def numel(parameter: nn.Parameter) -> int:
    """Number of values of the whole parameter."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


class WholeModel(Strategy):
    """What this package asks of a strategy; as it stands, for strategies where each process has the whole model."""

    #: The term is selected right before this method of the strategy.
    select_before = "setup"
    #: Number of values of the model, counted before anything is sharded.
    total_parameters = 0

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
        """Read a checkpoint of any strategy."""
        return Strategy.load_checkpoint(self, checkpoint_file(checkpoint_path), weights_only)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Continue with the optimizer's state.

        Raises:
            CheckpointError: If the checkpoint's is in DeepSpeed's own format.
        """
        if not checkpoint["optimizer_states"]:
            raise CheckpointError(
                "this checkpoint was written under DeepSpeed, which alone can read its optimizer's state: resume with "
                "the same strategy and number of processes. Its trained values can be evaluated under any strategy."
            )
        self._load_optimizer_states(checkpoint)

    def _load_optimizer_states(self, checkpoint: Mapping[str, Any]) -> None:
        Strategy.load_optimizer_state_dict(self, checkpoint)


class ShardedModel(WholeModel):
    """A strategy where each process has a part of the model: checkpoints hold the trained values, whole."""

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
        return values | _persistent_buffers(self.lightning_module)

    def trained_value(self, parameter: nn.Parameter) -> Tensor:
        """The whole of a trained parameter, as precise as the optimizer knows it."""
        return whole(parameter)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimizer's state, whole on each process."""
        state: dict[str, Any] = apply_to_collection(optimizer.state_dict(), DTensor, whole)
        return state

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write one file, as on a single device."""
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Put the trained values into the module."""
        Strategy.load_model_state_dict(self, checkpoint, strict=False)


class FlatShardedModel(ShardedModel, FSDPStrategy):
    """FSDP of the first kind, which flattens parameters: what may be trained stays outside, whole on every process."""

    select_before = "setup_optimizers"
    _outside: Sequence[nn.Parameter] = ()

    def _setup_model(self, model: nn.Module) -> nn.Module:
        assert self.lightning_module is not None
        head = set(head_parameters(self.lightning_module))
        # All vectors: norms are kept in fp32 like the biases, and flat parameters have one precision.
        self._outside = [p for n, p in self.lightning_module.named_parameters() if p.ndim < 2 or n in head]
        outside = set(self._outside)
        for parameter in self.lightning_module.parameters():
            if parameter in outside:
                parameter.data = parameter.data.to(self.root_device)
            else:
                parameter.requires_grad_(False)
        _generate_together(self.lightning_module)
        self.kwargs["ignored_states"] = self._outside
        self.kwargs.setdefault("auto_wrap_policy", ModuleWrapPolicy(layer_classes(self.lightning_module)))
        # Norms of flattened gradients need all processes; these gradients are whole.
        clip = Precision.clip_grad_by_norm.__get__(self.precision_plugin)
        self.precision_plugin.__dict__["clip_grad_by_norm"] = clip
        return super()._setup_model(model)

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


class ShardedTensorModel(ShardedModel, ModelParallelStrategy):
    """FSDP of the second kind, where each parameter is a tensor that knows its parts."""

    select_before = "setup_optimizers"

    def setup(self, trainer: Trainer) -> None:
        """Shard the model, unless the module's ``configure_model`` has done so.

        Raises:
            BeftError: If it is not to be sharded over all processes, or a part of it was made after sharding.
        """
        assert self.lightning_module is not None
        if not any(isinstance(child, FSDPModule) for child in self.lightning_module.modules()):
            self._shard(self.lightning_module)
        elif plain := [n for n, p in self.lightning_module.named_parameters() if not isinstance(p, DTensor)]:
            raise BeftError(
                f"configure_model has sharded the model, but not {plain[0]!r}. If it is one of the biases that are added "
                "where a model has none, call beft_lightning.bias.add_missing_biases() before fully_shard(), or leave "
                "the sharding to BiasSelectionCallback."
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
        _generate_together(module)
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


class ZeroModel(ShardedModel, DeepSpeedStrategy):
    """DeepSpeed, whose engine takes what is trainable once and for all."""

    _folder: Path | None = None

    @contextmanager
    def model_sharded_context(self) -> Iterator[None]:
        """Tell transformers, too, that weights are to be sharded as they are loaded (ZeRO-3)."""
        assert isinstance(self.config, dict)
        # It is for logs of the speed only, and Lightning would make a training loader to find out.
        self.config.setdefault("train_micro_batch_size_per_gpu", 1)
        self._init_config_if_needed()
        if self.zero_stage_3:
            from transformers.integrations import HfDeepSpeedConfig

            self._config_of_transformers = HfDeepSpeedConfig(self.config)  # it goes by a weak reference
        with super().model_sharded_context():
            yield

    def teardown(self) -> None:
        """Let transformers load whole models again."""
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()
        super().teardown()

    @contextmanager
    def scoring(self, trained: Sequence[nn.Parameter]) -> Iterator[None]:
        """Under ZeRO-3, an engine without optimizer that gathers the weights layer by layer, and is thrown away."""
        module = self.lightning_module
        assert module is not None
        if not any(hasattr(parameter, "ds_id") for parameter in module.parameters()):
            with super().scoring(trained):
                yield
            return
        import deepspeed

        assert self.config is not None
        names = ("bf16", "fp16", "zero_optimization", "zero_allow_untested_optimizer")
        engine, *_ = deepspeed.initialize(
            args=Namespace(device_rank=self.root_device.index),
            config={"train_micro_batch_size_per_gpu": 1} | {n: self.config[n] for n in names if n in self.config},
            model=module,
            model_parameters=[],
            dist_init_required=False,
        )
        kept = {id(p): p for p in (*trained, *(p for p in module.parameters() if len(p.ds_shape) < 2))}.values()
        precision = {parameter: parameter.dtype for parameter in kept}
        try:
            with deepspeed.zero.GatheredParameters(list(kept)):
                for parameter in kept:
                    parameter.ds_active_sub_modules.add(_IN_USE)
                    parameter.data = parameter.data.float()
                try:
                    yield
                finally:
                    for parameter in kept:
                        parameter.ds_active_sub_modules.clear()
        finally:
            engine.optimizer.partition_all_parameters()
            engine.destroy()
            for parameter in kept:
                parameter.data = parameter.data.to(precision[parameter])

    def scoring_step(self, *arguments: Any) -> Any:
        """The module's ``training_step`` inside its ``forward``, where the engine has hooked itself in."""
        module = self.lightning_module
        assert module is not None
        return self._forward_redirection(module, module, "training_step", *arguments)

    def trained_value(self, parameter: nn.Parameter) -> Tensor:
        """The optimizer's own fp32 value, of which the module may have a half-precision copy."""
        from deepspeed.utils import safe_get_full_fp32_param

        value = safe_get_full_fp32_param(parameter)
        return super().trained_value(parameter) if value is None else value.detach()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Nothing: the engine writes it."""
        return {}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write a folder: the engine's files, and one with everything but the optimizer's state."""
        folder = Path(self.broadcast(filepath))
        self.deepspeed_engine.save_checkpoint(str(folder), tag="checkpoint", exclude_frozen_parameters=True)
        super().save_checkpoint({**checkpoint, "optimizer_states": []}, folder / ADAPTER_FILE, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read all but the optimizer's state, which the engine reads once there is one."""
        self._folder = Path(checkpoint_path)
        return super().load_checkpoint(checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Put the trained values into the module, of which each process may hold a part."""
        import deepspeed

        assert self.lightning_module is not None
        named = dict(self.lightning_module.named_parameters())
        parts = [named[name] for name in checkpoint["state_dict"] if hasattr(named.get(name), "ds_id")]
        with deepspeed.zero.GatheredParameters(parts, modifier_rank=0, enabled=bool(parts)):
            super().load_model_state_dict(checkpoint)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Let the engine continue.

        Raises:
            CheckpointError: If another strategy, or another number of processes, wrote the checkpoint.
        """
        assert self._folder is not None
        written = len(list(self._folder.glob("checkpoint/*optim_states.pt")))
        if written != self.world_size:
            who = f"{written} processes" if written else "another strategy than DeepSpeed"
            raise CheckpointError(
                f"{self._folder}: written by {who}; DeepSpeed resumes only from its own checkpoint of as many processes "
                f"as now ({self.world_size}). Its trained values can be evaluated under any strategy."
            )
        self.deepspeed_engine.load_checkpoint(
            str(self._folder), tag="checkpoint", load_lr_scheduler_states=False, load_module_strict=False
        )


#: Stands among the modules that use a parameter, which DeepSpeed then does not release.
_IN_USE = "scoring"

#: Lightning's strategies, the special before the general, and what this package needs of them.
_ADAPTED: Mapping[type[Strategy], type[WholeModel]] = {
    DeepSpeedStrategy: ZeroModel,
    FSDPStrategy: FlatShardedModel,
    ModelParallelStrategy: ShardedTensorModel,
    DDPStrategy: WholeModel,
    SingleDeviceStrategy: WholeModel,
}


def adapt(strategy: Strategy) -> WholeModel:
    """Give a trainer's strategy the methods that this package needs.

    The instance gets a subclass of its own class, so that it may be any user's subclass of Lightning's strategies.

    Raises:
        BeftError: If the strategy is none of those that are known to work.
    """
    if isinstance(strategy, WholeModel):
        return strategy
    ours = next((ours for theirs, ours in _ADAPTED.items() if isinstance(strategy, theirs)), None)
    if ours is None:
        raise BeftError(
            f"{type(strategy).__name__} cannot train a choice of biases; use one of: "
            f"{', '.join(known.__name__ for known in _ADAPTED)}."
        )
    theirs = type(strategy)
    strategy.__class__ = type(theirs.__name__, (ours, theirs), {"__module__": theirs.__module__})
    assert isinstance(strategy, WholeModel)
    return strategy


def check_precision(trainer: Trainer) -> None:
    """Refuse a precision that would keep the trained biases in half precision.

    Raises:
        BeftError: If it is ``bf16-true`` or ``16-true``.
    """
    if trainer.precision in ("bf16-true", "16-true"):
        raise BeftError(
            f"precision {trainer.precision!r} would cast the trained biases to half precision, where small "
            "updates are lost: use 'bf16-mixed', or '32-true'; the frozen weights may be loaded in half precision."
        )


def gather(value: Any) -> list[Any]:
    """The values of all processes, by rank."""
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def check_same(settings: Mapping[str, Any]) -> None:
    """Refuse to start processes that would train different things, or wait for each other for ever.

    Args:
        settings: What has to be the same in all processes, by name.

    Raises:
        BeftError: If something is not.
    """
    everywhere = gather(dict(settings))
    for rank, there in enumerate(everywhere):
        if different := [name for name in settings if there.get(name) != everywhere[0].get(name)]:
            name = different[0]
            raise BeftError(
                f"{name} is {everywhere[0].get(name)!r} in process 0 and {there.get(name)!r} in process {rank}: start "
                "all processes with the same command, configuration and data."
            )


def checkpoint_file(path: str | Path) -> Path:
    """The file with the trained values: the checkpoint itself, or one inside it (DeepSpeed)."""
    adapter = Path(path) / ADAPTER_FILE
    return adapter if adapter.is_file() else Path(path)


def layer_classes(module: nn.Module) -> set[type[nn.Module]]:
    """The classes of the layers that transformers keeps together."""
    models = [child for child in module.modules() if isinstance(child, PreTrainedModel)]
    names = {name for model in models for name in model._no_split_modules or ()}
    return {type(child) for child in module.modules() if type(child).__name__ in names}


def _generate_together(module: nn.Module) -> None:
    """Let processes that have finished their texts go on until all have: each step gathers weights from all of them."""
    for child in module.modules():
        if isinstance(child, PreTrainedModel):
            child._is_fsdp_managed_module = True


def _persistent_buffers(module: nn.Module) -> dict[str, Tensor]:
    return {
        clean_name(f"{prefix}{'.' if prefix else ''}{name}"): buffer
        for prefix, owner in module.named_modules()
        for name, buffer in owner._buffers.items()
        if buffer is not None and name not in owner._non_persistent_buffers_set
    }


def _like(value: Any, parameter: nn.Parameter | None) -> Any:
    """This process's part of a value of a parameter, or of its optimizer's state; a step count stays as it is."""
    if isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape:
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value


def call_before(owner: Any, name: str, action: Callable[[], None]) -> None:
    """Call ``action`` once, right before the next call of ``owner.name``."""
    original = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        owner.__dict__.pop(name, None)
        action()
        return original(*args, **kwargs)

    owner.__dict__[name] = call


def call_after(owner: Any, name: str, action: Callable[[], None]) -> None:
    """Call ``action`` once, right after the next call of ``owner.name``."""
    original = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        owner.__dict__.pop(name, None)
        result = original(*args, **kwargs)
        action()
        return result

    owner.__dict__[name] = call
