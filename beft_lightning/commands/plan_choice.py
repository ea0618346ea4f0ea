"""Batches of the choice of a bias term: of the scoring, or of the race."""

import math
from dataclasses import dataclass

from beft_lightning.bias import find_bias_terms
from beft_lightning.bias.names import in_towers
from beft_lightning.bias.scope import inert_terms
from beft_lightning.callbacks import BiasSelectionCallback
from beft_lightning.callbacks.selection_checks import RACE
from beft_lightning.scoring.race.fit import settings_for
from beft_lightning.scoring.race.rounds import rounds
from beft_lightning.tasks import LanguageTaskModule


@dataclass(frozen=True)
class Choice:
    """Batches of a choice, at most: scores may be stable earlier, and a race may be decided earlier.

    Args:
        training: Batches that are trained on.
        held_out: Batches without a backward pass.
    """

    training: int = 0
    held_out: int = 0

    @property
    def batches(self) -> float:
        """All batches; held-out ones count half."""
        return self.training + self.held_out / 2


def planned_choice(
    module: LanguageTaskModule, selection: BiasSelectionCallback | None, fit_batches: float = math.inf
) -> Choice:
    """Return the batches of the choice before a fit.

    Args:
        module: The module with its model, missing biases added.
        selection: The callback that decides where ``module.tune`` is ``auto``.
        fit_batches: Training batches of the fit; infinite if they are not known.

    Raises:
        ScoringError: If the allowance of a race is too small.
    """
    selection = selection or BiasSelectionCallback()
    if module.method is not None or selection.is_fixed or selection.scores_file is not None:
        return Choice()
    if selection.approach != RACE:
        return Choice(training=selection.batches)
    places = (selection.architecture, selection.scope)
    inert = inert_terms(module, *places) or ()
    live = [term for term in in_towers(selection.terms, find_bias_terms(module, *places)) if term not in inert]
    settings = settings_for(module, selection.race)
    planned = rounds(len(live) * max(1, len(settings.rates)), settings, fit_batches)
    laps = sum(each.entrants for each in planned)
    trained = sum(each.cost for each in planned) - laps * settings.held_out / 2
    return Choice(training=round(trained), held_out=(1 + laps) * settings.held_out)
