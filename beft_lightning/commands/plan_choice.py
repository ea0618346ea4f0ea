"""Batches of the choice before a fit: of the scoring, or of races between bias terms or learning rates."""

import math
from dataclasses import dataclass

from beft_lightning.bias import find_bias_terms
from beft_lightning.bias.names import in_towers
from beft_lightning.bias.scope import inert_terms
from beft_lightning.callbacks import BiasSelectionCallback
from beft_lightning.callbacks.rate_race import RateRace
from beft_lightning.callbacks.selection_checks import RACE
from beft_lightning.scoring.candidates import check_candidates
from beft_lightning.scoring.race.fit import settings_for
from beft_lightning.scoring.race.rounds import rounds
from beft_lightning.scoring.race.settings import RaceSettings
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
    module: LanguageTaskModule,
    selection: BiasSelectionCallback | None,
    rate_race: RateRace | None = None,
    fit_batches: float = math.inf,
    together: int = 1,
) -> Choice:
    """Return the batches of the choice before a fit, of what is trained and of the learning rate.

    Args:
        module: The module with its model, missing biases added.
        selection: The callback that decides where ``module.tune`` is ``auto``.
        rate_race: The callback that chooses the learning rate, if there is one.
        fit_batches: Training batches of the fit; infinite if they are not known.
        together: Batches whose gradients an optimizer step accumulates.

    Raises:
        ScoringError: If the allowance of a race is too small.
        TermError: If the model has no live candidate for a race.
    """
    of_terms = _choice_of_terms(module, selection or BiasSelectionCallback(), fit_batches, together)
    if rate_race is None:
        return of_terms
    of_rate = _race(len(rate_race.settings.rates), rate_race.settings.in_steps(together), fit_batches)
    return Choice(of_terms.training + of_rate.training, of_terms.held_out + of_rate.held_out)


def _choice_of_terms(
    module: LanguageTaskModule, selection: BiasSelectionCallback, fit_batches: float, together: int
) -> Choice:
    if module.method is not None or selection.is_fixed or selection.scores_file is not None:
        return Choice()
    if selection.approach != RACE:
        return Choice(training=selection.batches)
    places = (selection.architecture, selection.scope)
    inert, terms = inert_terms(module, *places), find_bias_terms(module, *places)
    candidates = in_towers(selection.terms, terms)
    assert module.model is not None
    check_candidates(candidates, terms, inert, module.model.config.model_type)
    live = [term for term in candidates if term not in (inert or ())]
    settings = settings_for(module, selection.race).in_steps(together)
    return _race(len(live) * max(1, len(settings.rates)), settings, fit_batches)


def _race(entrants: int, settings: RaceSettings, fit_batches: float) -> Choice:
    planned = rounds(entrants, settings, fit_batches)
    laps = sum(each.entrants for each in planned)
    trained = sum(each.cost for each in planned) - laps * settings.held_out / 2
    return Choice(training=round(trained), held_out=(1 + laps) * settings.held_out)
