"""The command ``plan``: sizes of a fit, before any weights are loaded; and if asked for, its times."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import rich
import torch
from lightning.pytorch import LightningDataModule, Trainer
from rich.table import Table
from torch import nn
from torch.optim import Optimizer

from beft_lightning.callbacks import BiasSelectionCallback, FrozenLayerCache
from beft_lightning.callbacks.rate_race import RateRace, rate_race_of
from beft_lightning.commands.plan_choice import planned_choice
from beft_lightning.commands.plan_seconds import time_fit
from beft_lightning.errors import BeftError
from beft_lightning.models import QUANTIZED
from beft_lightning.tasks import LanguageTaskModule
from beft_lightning.tuning import tuned_terms

# Bytes of a checkpoint file beside the values of its tensors, as measured: the states of random number generators and
# loops; for each stored tensor its name, place and alignment; for each frozen one its identity (values and checksum).
_FILE_BYTES = 17_800
_STORED_BYTES = 295
_FROZEN_BYTES = 172


@dataclass(frozen=True)
class Plan:
    """Sizes of a fit, without activations, which depend on the batches.

    Args:
        tune: What is trained beside the head. Where scores decide, sizes are those of the largest choice.
        total_parameters: All parameters of the model, shared ones counted once.
        trained_parameters: Those that are trained, the head included.
        frozen_bytes: The frozen parameters in the precision they are held in.
        trained_bytes: The trained parameters, fp32.
        gradient_bytes: Gradients of the trained parameters.
        optimizer_bytes: State of the optimizer.
        checkpoint_bytes: File size of an adapter checkpoint, estimated within 5 % and 2 KB.
        reduced_bytes_per_step: Bytes that each process contributes to the all-reduce of an optimizer step under DDP.
        choice_batches: Batches of the scoring or the races before the fit, at most; held-out ones count half.
        cache_bytes: What a FrozenLayerCache will keep, known once the data is read.
    """

    tune: str
    total_parameters: int
    trained_parameters: int
    frozen_bytes: int
    trained_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    checkpoint_bytes: int
    reduced_bytes_per_step: int
    choice_batches: float = 0.0
    cache_bytes: int = 0

    @property
    def trained_share(self) -> float:
        """Trained parameters as a share of all."""
        return self.trained_parameters / self.total_parameters

    def to_dict(self) -> dict[str, object]:
        """Return the sizes as plain types, ready for JSON."""
        return asdict(self) | {"trained_share": self.trained_share}

    def table(self) -> Table:
        """Return the sizes as a table for ``rich.print``."""
        table = Table(title="plan", show_header=False)
        table.add_row("trained", self.tune)
        share = f"{self.trained_parameters:,} of {self.total_parameters:,} ({self.trained_share:.4%})"
        table.add_row("trained parameters", share)
        for label, value in (
            ("frozen base", self.frozen_bytes),
            ("gradients", self.gradient_bytes),
            ("optimizer state", self.optimizer_bytes),
            ("checkpoint, about", self.checkpoint_bytes),
            ("reduced per step under DDP", self.reduced_bytes_per_step),
        ):
            table.add_row(label, _format_size(value))
        if self.cache_bytes:
            table.add_row("kept states of frozen layers", _format_size(self.cache_bytes))
        if self.choice_batches:
            table.add_row("scoring or race, at most", f"{self.choice_batches:,.0f} batches")
        return table


def print_plan(
    trainer: Trainer,
    module: LanguageTaskModule,
    data: LightningDataModule | None,
    selection: BiasSelectionCallback | None,
    *,
    as_json: bool,
    seconds: bool,
) -> None:
    """Print the sizes of a fit, as a table or as JSON.

    Args:
        trainer: The trainer of the fit.
        module: The module before its model is loaded.
        data: The data, read for the times only.
        selection: The callback that decides where ``module.tune`` is ``auto``.
        as_json: Print JSON, sizes in bytes.
        seconds: Load the model, and print the times of the fit from a few timed steps.

    Raises:
        BeftError: If sizes or times cannot be known.
    """
    random_init = module.random_init
    plan = plan_fit(module, selection, rate_race_of(trainer), trainer.accumulate_grad_batches)
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}  # torch 2.11
    advice = bf16_advice(capabilities, trainer.strategy.root_device.type, str(trainer.precision))
    times = None
    if seconds:
        if data is None:
            raise BeftError("--seconds needs the data of the fit: name it with --data.")
        module.model, module.random_init = None, random_init
        times = time_fit(trainer, module, data, selection)
        plan = replace(plan, choice_batches=times.choice_batches, cache_bytes=_cache_bytes(trainer, module, data))
    if as_json:
        more = {"advice": advice} | ({"seconds": times.to_dict()} if times else {})
        print(json.dumps(plan.to_dict() | more, indent=2))
        return
    table = plan.table()
    for label, value in times.rows() if times else ():
        table.add_row(label, value)
    rich.print(table)
    if advice:
        rich.print(advice)


def bf16_advice(capabilities: Mapping[str, object], device: str, precision: str) -> str | None:
    """Return the advice to train in bf16, on a CPU that has instructions for it.

    Args:
        capabilities: Name -> whether the CPU has it, as ``torch.cpu.get_capabilities`` gives them.
        device: Type of the device that is trained on.
        precision: Precision of the trainer.
    """
    has_bf16 = any(name.endswith("bf16") and value for name, value in capabilities.items())
    if device != "cpu" or precision != "32-true" or not has_bf16:
        return None
    return "This CPU has instructions for bf16: --trainer.precision bf16-mixed may be faster; scores stay fp32."


def plan_fit(
    module: LanguageTaskModule,
    selection: BiasSelectionCallback | None = None,
    rate_race: RateRace | None = None,
    together: int = 1,
) -> Plan:
    """Compute the sizes of a fit of ``module``, which is built without weights.

    Args:
        module: The module before its model is loaded. It cannot be trained afterwards.
        selection: The callback that decides where ``module.tune`` is ``auto``.
        rate_race: The callback that chooses the learning rate, if there is one.
        together: Batches whose gradients an optimizer step accumulates.

    Raises:
        BeftError: If the weights are quantized, whose sizes are known only once they are loaded.
        BackboneError: If the backbone's configuration cannot be loaded.
        TermError: If a term does not exist.
    """
    if module.dtype_name in QUANTIZED:
        raise BeftError(f"plan knows no sizes of {module.dtype_name} weights, which are packed as they are loaded.")
    module.random_init = True  # On the meta device there are no values to load.
    with torch.device("meta"):
        module.configure_model()
    if module.method is None:
        tune = (selection or BiasSelectionCallback()).freeze_largest(module)
    else:
        tune = ", ".join(tuned_terms(module.tune))
    plan = plan_of(module, module.make_optimizer(), tune)
    return replace(plan, choice_batches=planned_choice(module, selection, rate_race, together=together).batches)


def plan_of(module: nn.Module, optimizer: Optimizer, tune: str) -> Plan:
    """Compute the sizes of a fit of ``module`` with the parameters that require gradients now.

    Args:
        module: The module, on the meta device: the optimizer takes a step.
        optimizer: The optimizer over what is trainable.
        tune: What is trained, in words.
    """
    parameters = list(module.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    for parameter in trained:
        parameter.grad = torch.empty_like(parameter)
    optimizer.step()  # An optimizer makes its state in its first step.
    state = [value for values in optimizer.state.values() for value in values.values() if torch.is_tensor(value)]
    # A tied parameter is one tensor under several names.
    names = dict(module.named_parameters(remove_duplicate=False))
    buffers = [value for name, value in module.state_dict().items() if name not in names]
    stored = _bytes(trained) + _bytes(state) + _bytes(buffers)
    return Plan(
        tune=tune,
        total_parameters=sum(parameter.numel() for parameter in parameters),
        trained_parameters=sum(parameter.numel() for parameter in trained),
        frozen_bytes=_bytes(frozen),
        trained_bytes=_bytes(trained),
        gradient_bytes=_bytes(parameter.grad for parameter in trained if parameter.grad is not None),
        optimizer_bytes=_bytes(state),
        checkpoint_bytes=stored
        + _FILE_BYTES
        + _STORED_BYTES * (len(trained) + len(state) + len(buffers))
        + _FROZEN_BYTES * len(frozen),
        reduced_bytes_per_step=_bytes(trained),
    )


def _cache_bytes(trainer: Trainer, module: LanguageTaskModule, data: LightningDataModule) -> int:
    """Return what a FrozenLayerCache among the trainer's callbacks will keep; 0 without one."""
    assert module.model is not None
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    caches = [callback for callback in callbacks if isinstance(callback, FrozenLayerCache)]
    return sum(cache.expected_bytes(module.model.config.hidden_size, data.train_dataloader()) for cache in caches)


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _format_size(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.2f} GiB"
