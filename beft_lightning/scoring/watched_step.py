"""Find the bias terms of a module by watching its own ``training_step`` on the fit's first batch."""

from functools import partial

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature

from beft_lightning.bias.architecture import Architecture
from beft_lightning.bias.discovery import HOW_TO_MAP, confirmed, discover
from beft_lightning.bias.found import note_found, noted
from beft_lightning.errors import ArchitectureError
from beft_lightning.scoring.batches import training_batches, training_data
from beft_lightning.scoring.isolation import eval_mode, leave_no_trace
from beft_lightning.scoring.training_loss import half_autocast
from beft_lightning.strategies.internals.lightning import before_batch_transfer


def watch_training_step(trainer: Trainer, module: LightningModule) -> list[Architecture]:
    """Find where the bias terms of a module are that holds no transformers model. It is as before afterwards.

    A module that was watched in an earlier fit, or in the one that is resumed, is not watched again.

    Args:
        trainer: A trainer inside ``fit``, before its strategy is set up.
        module: The module, on any device. What may be trained is fp32, whatever the other weights are.

    Returns:
        An architecture for each stack of layers.

    Raises:
        ArchitectureError: If the step cannot be run yet, or shows no attention.
    """
    if (known := noted(module)) is not None:
        return known
    takes_iterator = is_param_in_hook_signature(module.training_step, "dataloader_iter", explicit=True)
    has_no_values = any(parameter.is_meta for parameter in module.parameters())
    if not module.automatic_optimization or takes_iterator or has_no_values:
        how = "has no values yet" if has_no_values else "cannot be run on a single batch before the optimizers exist"
        raise ArchitectureError(
            f"{type(module).__name__} contains no transformers model, and {how}, so that its training_step cannot be "
            f"watched to find its attention. {HOW_TO_MAP}"
        )
    with leave_no_trace(trainer, module, []) as snapshot, training_data(trainer, snapshot) as data, eval_mode(module):
        batch = next(training_batches(data), None)
        if batch is None:
            raise ArchitectureError(f"there is no training batch to watch {type(module).__name__} on. {HOW_TO_MAP}")
        batch = module.transfer_batch_to_device(before_batch_transfer(module, batch), module.device, 0)
        takes_index = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)
        with half_autocast(module, module.device):
            found = discover(module, partial(module.training_step, *([batch, 0] if takes_index else [batch])))
    return note_found(module, confirmed(module, found))
