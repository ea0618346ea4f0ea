"""The ways of training a model: what ``tune`` means."""

from collections.abc import Callable, Mapping

from torch import nn

from beft_lightning.bias import add_missing_biases, all_biases, freeze_except, head_parameters

#: The module decides nothing; a BiasSelectionCallback does.
AUTO = "auto"


def _tune_all(model: nn.Module) -> None:
    """Every bias of the model, and the head (BitFit)."""
    freeze_except(model, [], keep=[*all_biases(model), *head_parameters(model)])


def _tune_head(model: nn.Module) -> None:
    """The head alone: the baseline any bias term has to beat."""
    freeze_except(model, [], keep=head_parameters(model))


#: Way -> what sets it up on a model. Any other value of ``tune`` names bias terms.
WAYS: Mapping[str, Callable[[nn.Module], None]] = {"all": _tune_all, "head": _tune_head}


def tuned_terms(tune: str | list[str]) -> list[str]:
    """``tune`` as a list: ``"query,value"`` and ``["query", "value"]`` mean the same."""
    return [name.strip() for name in tune.split(",")] if isinstance(tune, str) else list(tune)


def set_up_tuning(model: nn.Module, tune: str | list[str]) -> None:
    """Make trainable what ``tune`` says, and freeze the rest.

    Args:
        model: The model under its head.
        tune: A key of :data:`WAYS`, or bias terms such as ``value``, ``query,value`` or ``value.3``. The head is
            trained beside the terms, and biases the model lacks are added as zeros.

    Raises:
        TermError: If a term does not exist.
    """
    names = tuned_terms(tune)
    if len(names) == 1 and names[0] in WAYS:
        WAYS[names[0]](model)
        return
    add_missing_biases(model, list(dict.fromkeys(name.partition(".")[0] for name in names)))
    freeze_except(model, names, keep=head_parameters(model))
