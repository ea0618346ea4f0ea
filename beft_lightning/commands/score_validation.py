"""Validation of the scores: measures of the terms before training, compared with the results of training them."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import torch
from lightning.pytorch import Callback, Trainer
from torchmetrics.functional import spearman_corrcoef

from beft_lightning.bias import find_bias_terms
from beft_lightning.callbacks import BiasSelectionCallback
from beft_lightning.commands.markdown import markdown_table
from beft_lightning.data import LanguageDataModule
from beft_lightning.scoring.approaches import APPROACHES
from beft_lightning.tasks.module import LanguageTaskModule

#: Measure -> term -> value; the higher, the better the term should be.
Measures = dict[str, dict[str, float]]


def measure_terms(
    module: LanguageTaskModule,
    data: LanguageDataModule,
    make_trainer: Callable[[list[Callback]], Trainer],
    terms: Sequence[str],
    batches: int = 32,
) -> Measures:
    """Return the scores of each term by the approaches that take whole batches, and ``1/norm(b0)``.

    The last one is a control. Adam moves every value by about the same amount, so a relative score may depend on little
    but the norm of the pretrained bias ``b0``; ``1/norm(b0)`` alone shows how much.

    Args:
        module: The pretrained module, with ``tune`` set to ``auto``; it is not changed.
        data: Where the training batches come from.
        make_trainer: Makes a fresh trainer, given callbacks.
        terms: Names of the terms.
        batches: Number of training batches to score on.

    Returns:
        The measures. For biases that start at zero, projection and ``1/norm(b0)`` are not defined and left out.
    """
    assert module.model is not None
    pretrained = find_bias_terms(module.model)
    sized = all(term in pretrained and all(bias.any() for bias in pretrained[term].values()) for term in terms)
    measures: Measures = {}
    for name, approach in APPROACHES.items():
        if approach.single_examples or (approach.needs_pretrained_biases and not sized):
            continue
        callback = BiasSelectionCallback(name, terms=terms, batches=batches, patience=0)
        trainer = make_trainer([callback])
        assert trainer.fit_loop is not None
        trainer.fit_loop.max_epochs = 0  # a fit of no epochs ends right after the selection
        trainer.fit(copy.deepcopy(module), datamodule=data)
        assert callback.scores is not None
        measures[name] = {term: callback.scores.terms[term].score for term in terms}
    if sized:
        measures["1/norm(b0)"] = {
            term: sum(1 / bias.norm().item() for bias in pretrained[term].values()) / len(pretrained[term])
            for term in terms
        }
    return measures


def rank_correlations(measures: Measures, accuracies: Mapping[str, float]) -> dict[str, float]:
    """Compute Spearman's rank correlation of each measure with the measured accuracies, over the terms.

    Args:
        measures: From :func:`measure_terms`.
        accuracies: Term -> mean accuracy when it is trained; at least three terms.

    Returns:
        Measure -> correlation; NaN where all terms are tied in the measure or in the accuracies, which have no order
        then.
    """
    terms = list(accuracies)
    truth = torch.tensor([accuracies[term] for term in terms])
    correlations = {}
    for name, values in measures.items():
        measured = torch.tensor([values[term] for term in terms])
        tied = min(len(measured.unique()), len(truth.unique())) == 1
        correlations[name] = math.nan if tied else spearman_corrcoef(measured, truth).item()
    return correlations


def measures_table(measures: Measures, accuracies: Mapping[str, float], metric: str) -> str:
    """Return the measures as a table in Markdown: terms from the best result to the worst, then the rank correlation.

    Args:
        measures: From :func:`measure_terms`.
        accuracies: Term -> mean accuracy when it is trained; at least three terms.
        metric: Name of the accuracies' metric.
    """
    terms = sorted(accuracies, key=lambda term: -accuracies[term])
    values = pd.DataFrame(measures).T[terms].map("{:.3g}".format)
    last = f"rank correlation with {metric}"
    correlations = rank_correlations(measures, accuracies)
    values[last] = {name: "tied" if math.isnan(value) else f"{value:+.2f}" for name, value in correlations.items()}
    values.loc[metric] = {term: f"{accuracies[term]:.3f}" for term in terms} | {last: ""}
    order = [metric, *measures]
    return markdown_table(values.loc[order].rename_axis("measure").reset_index())
