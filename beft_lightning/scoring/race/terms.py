"""A race between bias terms."""

from lightning.pytorch import LightningModule, Trainer

from beft_lightning.bias import BiasTerms
from beft_lightning.parameters import numel
from beft_lightning.scoring.candidates import check_candidates
from beft_lightning.scoring.inertness import find_inert, term_parameters
from beft_lightning.scoring.race.fit import settings_for
from beft_lightning.scoring.race.race import run_race
from beft_lightning.scoring.race.scores import RaceScores
from beft_lightning.scoring.race.settings import RaceSettings


def race_terms(
    trainer: Trainer,
    module: LightningModule,
    terms: BiasTerms,
    head: list[str],
    inert: tuple[str, ...] | None,
    model_type: str,
    settings: RaceSettings,
) -> RaceScores:
    """Race bias terms, each trained alone with the head; inert terms do not run.

    Args:
        trainer: A trainer inside ``fit``, at the point where its strategy lets the term be selected.
        module: The module that is going to be fitted.
        terms: The candidates.
        head: Names of the head's parameters.
        inert: Terms known to be inert; ``None`` to probe on the first batch.
        model_type: Recorded in the result.
        settings: The settings of the race; a module that was given a learning rate keeps it.

    Raises:
        BeftError: If every candidate is inert; or see :func:`~beft_lightning.scoring.race.race.run_race`.
    """
    if inert is None:
        inert = find_inert(trainer, module, terms, head)
        check_candidates(terms, terms, inert, model_type)
    named = dict(module.named_parameters())
    parameters = {term: term_parameters({term: layers}) for term, layers in terms.items()}
    live = {term: [*own, *(named[name] for name in head)] for term, own in parameters.items() if term not in inert}
    return RaceScores(
        model_type=model_type,
        result=run_race(trainer, module, live, settings_for(module, settings)),
        parameters={term: sum(map(numel, own)) for term, own in parameters.items()},
        inert=[term for term in terms if term in inert],
    )
