"""The loss of a user's ``training_step`` outside the fit loop."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor

from beft_lightning.bias.precision import half_dtype
from beft_lightning.errors import ScoringError
from beft_lightning.strategies.adapter import AdapterStrategy
from beft_lightning.strategies.internals.lightning import before_batch_transfer


def training_loss(strategy: AdapterStrategy, module: LightningModule, batch: Any, index: int) -> Tensor | None:
    """Return the loss of the module's ``training_step`` on a batch, in fp32 where the weights are.

    Args:
        strategy: Moves the batch to its device and runs the step.
        module: The module, set up for training.
        batch: A batch as the dataloader gives it.
        index: The batch's number, from 0.

    Returns:
        A scalar; ``None`` if the step skips the batch.

    Raises:
        ScoringError: If the step returns something else.
    """
    device = strategy.root_device
    batch = before_batch_transfer(module, batch)
    batch = strategy.batch_to_device(batch, device)
    takes_index = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)
    with half_autocast(module, device):
        try:
            output = strategy.scoring_step(batch, index) if takes_index else strategy.scoring_step(batch)
        except Exception as error:
            error.add_note(
                "Raised while scoring bias terms, before the fit: hooks such as on_fit_start and on_train_start have "
                "not run yet. If training_step needs them, use BiasSelectionCallback(approach='fixed', terms=[...])."
            )
            raise
    loss = output.get("loss") if isinstance(output, Mapping) else output
    if loss is not None and not isinstance(loss, Tensor):
        raise ScoringError(
            f"`training_step` returned {type(output).__name__} instead of a loss tensor (or a dict with 'loss') "
            f"for scoring batch {index + 1}."
        )
    return loss


def half_autocast(module: LightningModule, device: torch.device) -> torch.autocast:
    """Return autocast for frozen weights in half precision, which need it to meet fp32 biases; else it is off.

    Args:
        module: The module whose step is run.
        device: Where it is run.
    """
    half = half_dtype(module)
    return torch.autocast(device.type, dtype=half or torch.bfloat16, enabled=half is not None)
