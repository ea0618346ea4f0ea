"""Train the biases of chosen terms, all biases (BitFit), or the task head alone."""

from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from beft_lightning.bias import add_missing_biases, all_biases, freeze_except
from beft_lightning.bias.names import without_layers
from beft_lightning.bias.owners import bias_owners
from beft_lightning.errors import TermError
from beft_lightning.tuning.method import NO_OPTION, TuningMethod


@dataclass(frozen=True)
class TermTuning(TuningMethod):
    """The biases of chosen terms. Biases that the model lacks are added as zeros.

    ``tune`` names the terms themselves: the method has no name of its own and no ``tune_options``.

    Args:
        terms: Names such as ``value`` (all layers), ``value.3`` (layer 3, counted from 0), ``value.3.h5`` (its head 5).
        methods: Names of the other methods, for the error that an unknown term causes.
    """

    name: ClassVar[str] = "terms"
    looks_for_terms: ClassVar[bool] = True
    terms: tuple[str, ...] = field(default=("value",), metadata=NO_OPTION)
    methods: tuple[str, ...] = field(default=(), compare=False, repr=False, metadata=NO_OPTION)

    @property
    def tune(self) -> str:
        """The terms, separated by commas."""
        return ",".join(self.terms)

    def check(self, model: nn.Module) -> None:
        """Check that the model has the terms.

        Raises:
            TermError: If there is no such term.
        """
        known = bias_owners(model)
        if unknown := [term for term in without_layers(self.terms) if term not in known]:
            raise TermError(
                f"tune {unknown[0]!r} is no method of training and no term of this model; the methods are: "
                f"{', '.join(self.methods)}; the terms: {', '.join(known)}."
            )

    def apply(self, model: nn.Module) -> None:
        """Add the biases that are missing, and freeze all but the chosen ones."""
        add_missing_biases(model, self.terms)
        freeze_except(model, self.terms)


@dataclass(frozen=True)
class AllBiasTuning(TuningMethod):
    """Every bias of the model (BitFit, arXiv 2106.10199)."""

    name: ClassVar[str] = "all"

    def apply(self, model: nn.Module) -> None:
        """Freeze all parameters but the biases."""
        freeze_except(model, [], keep=all_biases(model))


@dataclass(frozen=True)
class HeadTuning(TuningMethod):
    """The task head alone: the baseline that every choice of biases has to beat."""

    name: ClassVar[str] = "head"

    def apply(self, model: nn.Module) -> None:
        """Freeze all parameters."""
        model.requires_grad_(False)
