"""Find the bias terms of a module by watching its own ``training_step`` on the fit's first batch."""

from collections.abc import Mapping
from functools import partial

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import nn

from beft_lightning.bias.architecture import Architecture
from beft_lightning.bias.description import HOW_TO_MAP
from beft_lightning.bias.discovery import confirmed, discover_in
from beft_lightning.bias.found import note_found, noted
from beft_lightning.bias.scope import Scope, must_be_watched, unknown_models
from beft_lightning.errors import ArchitectureError
from beft_lightning.scoring.batches import training_batches, training_data
from beft_lightning.scoring.isolation import eval_mode, leave_no_trace
from beft_lightning.scoring.training_loss import half_autocast
from beft_lightning.strategies.internals.lightning import before_batch_transfer


def must_run(module: LightningModule, scope: Scope = None) -> bool:
    """Return whether the places of some terms in a scope are told by a run of the module alone."""
    return must_be_watched(module, scope) or bool(unknown_models(module, scope))


def watch_training_step(trainer: Trainer, module: LightningModule, scope: Scope = None) -> list[Architecture] | None:
    """Find where the bias terms of a module are by watching its step on a batch. It is as before afterwards.

    What was found in an earlier fit, or in the one that is resumed, is not looked for again.

    Args:
        trainer: A trainer inside ``fit``, before its strategy is set up.
        module: The module, on any device. What may be trained is fp32, whatever the other weights are.
        scope: Names of the submodules whose terms are needed.

    Returns:
        An architecture for each stack of layers; None if transformers models hold all that the scope names. Then what
        was found is noted on those that were unknown.

    Raises:
        ArchitectureError: If the step cannot be run yet, or shows no attention.
    """
    if must_be_watched(module, scope):
        known = noted(module)
        if known is None:
            known = note_found(module, confirmed(module, _watched(trainer, module, {"": module})[""]))
        return known
    unknown = unknown_models(module, scope)
    models = {name: module.get_submodule(name) for name in unknown}
    try:
        found = _watched(trainer, module, models)
        for name, model in models.items():
            confirmed(model, found[name])
    except ArchitectureError as error:
        reasons = "\n".join(map(str, unknown.values()))
        raise ArchitectureError(f"{reasons}\nThe training_step was watched instead, in vain: {error}") from error
    for name, model in models.items():
        note_found(model, found[name])
    return None


def _watched(
    trainer: Trainer, module: LightningModule, parts: Mapping[str, nn.Module]
) -> dict[str, list[Architecture]]:
    takes_iterator = is_param_in_hook_signature(module.training_step, "dataloader_iter", explicit=True)
    has_no_values = any(parameter.is_meta for parameter in module.parameters())
    if not module.automatic_optimization or takes_iterator or has_no_values:
        how = "has no values yet" if has_no_values else "cannot be run on a single batch before the optimizers exist"
        raise ArchitectureError(
            f"{type(module).__name__} {how}, so that its training_step cannot be watched to find its attention. "
            f"{HOW_TO_MAP}"
        )
    with leave_no_trace(trainer, module, []) as snapshot, training_data(trainer, snapshot) as data, eval_mode(module):
        batch = next(training_batches(data), None)
        if batch is None:
            raise ArchitectureError(f"there is no training batch to watch {type(module).__name__} on. {HOW_TO_MAP}")
        batch = trainer.strategy.batch_to_device(before_batch_transfer(module, batch), module.device)
        takes_index = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)
        with half_autocast(module, module.device):
            return discover_in(module, partial(module.training_step, *([batch, 0] if takes_index else [batch])), parts)
