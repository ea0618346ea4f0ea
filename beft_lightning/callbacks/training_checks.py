"""Preparations and checks around a selection: that it is possible, and that a fit trains what was selected."""

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import nn

from beft_lightning.bias.precision import HALF, keep_fp32
from beft_lightning.errors import BeftError
from beft_lightning.parameters import named_parameters


def check_scorable(module: LightningModule) -> None:
    """Check that a module's ``training_step`` can be run on single batches before there is an optimizer.

    Raises:
        BeftError: If it cannot.
    """
    takes_iterator = is_param_in_hook_signature(module.training_step, "dataloader_iter", explicit=True)
    if not module.automatic_optimization or takes_iterator:
        how = "takes the dataloader's iterator" if takes_iterator else "optimizes manually"
        raise BeftError(
            f"{type(module).__name__} {how}, so its training_step cannot be run on single batches before its "
            "optimizers exist: set `approach='fixed'` and name the terms to train."
        )


def check_no_adapters(module: nn.Module, head: str | Sequence[str]) -> None:
    """Check that selecting biases freezes no trainable adapter of peft's, such as LoRA, without being told to.

    Args:
        module: The module in the fit.
        head: What is trained beside the biases. Patterns that match an adapter's parameters ask to train it, too.

    Raises:
        BeftError: If there is an adapter that would be frozen.
    """
    patterns = [] if isinstance(head, str) else head
    for path, child in module.named_modules():
        # Models of peft's have a configuration; the layers inside of them that hold an adapter have none.
        adapter = type(child).__module__.startswith("peft.tuners.") and not hasattr(child, "peft_config")
        trainable = [name for name, parameter in child.named_parameters() if parameter.requires_grad]
        own = [f"{path}.{name}".lstrip(".") for name in trainable if not name.startswith("base_layer.")]
        if not adapter or all(any(fnmatchcase(name, pattern) for pattern in patterns) for name in own):
            continue
        raise BeftError(
            f"{path or type(module).__name__!r} is a {type(child).__name__} of peft's with trainable parameters, which "
            "BiasSelectionCallback would freeze. To train both, name the adapter's parameters beside the biases, such "
            "as `head=['auto', '*lora_*']`. Otherwise give it the plain model (`model.merge_and_unload()` merges an "
            "adapter into it), freeze the adapter yourself if it only belongs to the model, or leave out "
            "BiasSelectionCallback to train the adapter alone."
        )


def check_optimizers(trainer: Trainer, module: LightningModule, trained: Collection[str]) -> None:
    """Check that an optimizer has every parameter that was selected.

    Under DeepSpeed, whose optimizers hold copies, and in manual optimization, where a module may have optimizers that
    the trainer does not know, this cannot be seen.

    Args:
        trainer: A trainer with its optimizers set up.
        module: The module in the fit.
        trained: Names of the selected parameters.

    Raises:
        BeftError: If one is missing.
    """
    if isinstance(trainer.strategy, DeepSpeedStrategy) or not module.automatic_optimization:
        return
    optimized = {id(p) for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"]}
    if missing := [name for name, p in named_parameters(module) if name in trained and id(p) not in optimized]:
        raise BeftError(
            f"{len(missing)} of the {len(trained)} parameters to train are in no optimizer, for example "
            f"{missing[0]!r}: they would stay as they are. Let configure_optimizers of {type(module).__name__} give "
            "the optimizer all parameters that require a gradient: "
            "[p for p in self.parameters() if p.requires_grad], which are few by then."
        )


def check_still_frozen(module: nn.Module, trained: Collection[str]) -> None:
    """Check that exactly what was selected is trainable.

    Args:
        module: The module in the fit.
        trained: Names of the selected parameters.

    Raises:
        BeftError: If something was unfrozen or frozen since.
    """
    trainable = [name for name, parameter in named_parameters(module) if parameter.requires_grad]
    different = sorted({*trainable} ^ {*trained})
    if different:
        verb = "frozen" if different[0] in trained else "unfrozen"
        raise BeftError(
            f"{len(different)} parameters were {verb} after the selection, for example {different[0]!r}, so that the "
            f"fit no longer trains the {len(trained)} parameters that were selected. Leave out whatever changes "
            "requires_grad during the fit, such as BackboneFinetuning; `head` of BiasSelectionCallback says what is "
            "trained beside the biases."
        )


def cast_trainable(model: nn.Module, head: Collection[nn.Parameter], dtype: torch.dtype) -> None:
    """Cast what may be trained to fp32, and say so.

    Args:
        model: A model of half precision.
        head: The head's parameters, in or outside the model.
        dtype: The precision.
    """
    count = len(keep_fp32(model))
    for parameter in head:
        if parameter.dtype in HALF:
            parameter.data = parameter.data.float()
            count += 1
    if count:
        rank_zero_info(f"Cast {count} biases, norms and head parameters from {dtype} to fp32.")
