"""Find the bias terms of a module by watching its own ``training_step`` on the fit's first batch."""

from dataclasses import replace
from functools import partial

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature

from beft_lightning.bias.architecture import Architecture
from beft_lightning.bias.discovery import HOW_TO_MAP, confirmed, discover
from beft_lightning.bias.found import note_found, noted
from beft_lightning.bias.scope import Scope, models_in, must_be_watched
from beft_lightning.errors import ArchitectureError
from beft_lightning.scoring.batches import training_batches, training_data
from beft_lightning.scoring.isolation import eval_mode, leave_no_trace
from beft_lightning.scoring.training_loss import half_autocast
from beft_lightning.strategies.internals.lightning import before_batch_transfer


def watch_training_step(trainer: Trainer, module: LightningModule, scope: Scope = None) -> list[Architecture] | None:
    """Find where the bias terms of a module are by watching its step on a batch. It is as before afterwards.

    A module that was watched in an earlier fit, or in the one that is resumed, is not watched again.

    Args:
        trainer: A trainer inside ``fit``, before its strategy is set up.
        module: The module, on any device. What may be trained is fp32, whatever the other weights are.
        scope: Names of the submodules whose terms are needed.

    Returns:
        An architecture for each stack of layers; None if transformers models hold all that the scope names: then what
        was found in each is noted on it.

    Raises:
        ArchitectureError: If the step cannot be run yet, or shows no attention.
    """
    if must_be_watched(module, scope):
        known = noted(module)
        return known if known is not None else note_found(module, confirmed(module, _watched(trainer, module)))
    found = _watched(trainer, module)
    models = models_in(module, scope)
    for name, model in module.named_modules():
        if any(model is one for one in models):
            inside = [replace(one, layer=one.layer.removeprefix(f"{name}.")) for one in found if _in(one, name)]
            note_found(model, confirmed(model, inside))
    return None


def _in(architecture: Architecture, name: str) -> bool:
    return architecture.layer.startswith(f"{name}.")


def _watched(trainer: Trainer, module: LightningModule) -> list[Architecture]:
    takes_iterator = is_param_in_hook_signature(module.training_step, "dataloader_iter", explicit=True)
    has_no_values = any(parameter.is_meta for parameter in module.parameters())
    if not module.automatic_optimization or takes_iterator or has_no_values:
        how = "has no values yet" if has_no_values else "cannot be run on a single batch before the optimizers exist"
        raise ArchitectureError(
            f"{type(module).__name__} holds no transformers model in which attention is found without its inputs, and "
            f"{how}, so that its training_step cannot be watched to find its attention. {HOW_TO_MAP}"
        )
    with leave_no_trace(trainer, module, []) as snapshot, training_data(trainer, snapshot) as data, eval_mode(module):
        batch = next(training_batches(data), None)
        if batch is None:
            raise ArchitectureError(f"there is no training batch to watch {type(module).__name__} on. {HOW_TO_MAP}")
        batch = module.transfer_batch_to_device(before_batch_transfer(module, batch), module.device, 0)
        takes_index = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)
        with half_autocast(module, module.device):
            return discover(module, partial(module.training_step, *([batch, 0] if takes_index else [batch])))
