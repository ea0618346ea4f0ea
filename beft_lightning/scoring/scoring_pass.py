"""The scoring pass: a few batches of all-bias fine-tuning, or gradients only, without a trace in the fit.

Everything runs in fp32 outside autocast and with the published update rule. Under bf16 autocast and the usual
epsilon, Adam turns the rounding noise of the inert key bias into steps as large as any other, and the projection
score then ranks it first.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch.optim.lr_scheduler import ConstantLR

from beft_lightning.bias import BiasTerms
from beft_lightning.errors import ScoringError
from beft_lightning.parameters import numel
from beft_lightning.progress import bar
from beft_lightning.scoring.approaches import approach_named
from beft_lightning.scoring.batches import training_batches, training_data
from beft_lightning.scoring.inertness import probe_inert, term_parameters
from beft_lightning.scoring.isolation import eval_mode, leave_no_trace
from beft_lightning.scoring.observer import Observer, ScoreTable
from beft_lightning.scoring.reference_adam import ReferenceAdam
from beft_lightning.scoring.score_table import BiasScores, TermScore
from beft_lightning.strategies.adaptation import adapt


@dataclass(frozen=True)
class ScoringPass:
    """Settings of a scoring pass.

    Args:
        approach: Name of the approach, a key of :data:`~beft_lightning.scoring.approaches.APPROACHES`.
        batches: Largest number of training batches to use.
        patience: Stop once the order of the terms has not changed for this many batches; 0 never stops early, which
            is right where single layers or heads are selected.
        learning_rate: Learning rate of the all-bias fine-tuning.
        clip_norm: Joint gradient norm to clip to; ``None`` clips nothing.
        per_head: Whether heads that are set apart are scored, too, from the same batches.
    """

    approach: str
    batches: int
    patience: int
    learning_rate: float
    clip_norm: float | None
    per_head: bool = False

    def run(
        self,
        trainer: Trainer,
        module: LightningModule,
        terms: BiasTerms,
        candidates: list[str],
        head: list[str],
        inert: tuple[str, ...] | None,
        model_type: str,
    ) -> BiasScores:
        """Score terms on the user's own batches through the user's own ``training_step``.

        Args:
            trainer: A trainer inside ``fit``, at the point where its strategy lets the term be selected.
            module: The module that is going to be fitted.
            terms: Every bias term of the model; all are trained, as in the published all-bias run.
            candidates: The terms to score.
            head: Names of the head's parameters, trained along.
            inert: Terms known to be inert; ``None`` to probe on the first batch.
            model_type: Recorded in the result.

        Raises:
            ScoringError: If there is no training batch, the loss is not finite, or no gradient arrives.
        """
        approach = approach_named(self.approach)
        strategy = adapt(trainer.strategy)
        named = dict(module.named_parameters())
        biases = term_parameters(terms)
        trained = list({id(p): p for p in [*biases, *(named[name] for name in head)]}.values())
        with (
            strategy.scoring(trained),
            leave_no_trace(trainer, module, trained) as snapshot,
            training_data(trainer, snapshot) as data,
            torch.enable_grad(),
        ):
            batches = training_batches(data)
            if inert is None:
                first = next(batches, None)
                inert = probe_inert(strategy, module, terms, [named[name] for name in head], first)
                batches = itertools.chain([first], batches)
            scored = {term: terms[term] for term in candidates}
            optimizer = ReferenceAdam(trained, lr=self.learning_rate)
            # For a training step that asks for its optimizer or scheduler, to log the learning rate.
            strategy.optimizers = [optimizer]
            strategy.lr_scheduler_configs = [LRSchedulerConfig(ConstantLR(optimizer, factor=1.0))]
            observer = Observer(approach, strategy, module, scored, optimizer, self.clip_norm, self.per_head)
            tables = observer.tables(itertools.islice(batches, self.batches))
            with (
                nullcontext() if approach.fine_tunes else eval_mode(module),
                bar("scoring", self.batches, trainer) as advance,
            ):
                table, history = self._until_stable(tables, advance)
        return BiasScores(
            approach=self.approach,
            model_type=model_type,
            steps=len(next(iter(history.values()))),
            terms={
                term: TermScore(
                    layers=[scores.whole for scores in layers.values()],
                    heads=[scores.heads for scores in layers.values()] if self.per_head else [],
                    inert=term in inert,
                    parameters=sum(map(numel, terms[term].values())),
                    history=history[term],
                )
                for term, layers in table.items()
            },
        )

    def _until_stable(
        self, tables: Iterator[ScoreTable], advance: Callable[[], None]
    ) -> tuple[ScoreTable, dict[str, list[float]]]:
        """Return the last table, and each term's score after each batch."""
        table: ScoreTable = {}
        history: dict[str, list[float]] = {}
        order: list[str] = []
        unchanged = 0
        for step, table in enumerate(tables, start=1):
            advance()
            vectors = [vector for layers in table.values() for vector in layers.values()]
            if not all(math.isfinite(score) for vector in vectors for score in (vector.whole, *vector.heads)):
                raise ScoringError(
                    f"the scores are not finite after batch {step}: the gradients are not, or the scoring learning "
                    f"rate ({self.learning_rate:g}) is too high."
                )
            for term, layers in table.items():
                history.setdefault(term, []).append(sum(scores.whole for scores in layers.values()) / len(layers))
            latest = sorted(history, key=lambda term: -history[term][-1])
            unchanged = unchanged + 1 if latest == order else 0
            order = latest
            if self.patience and unchanged >= self.patience:
                break
        if not history:
            raise ScoringError("no training batch gave a loss to score on.")
        if not any(scores.whole > 0 for layers in table.values() for scores in layers.values()):
            raise ScoringError("every score is zero: the biases have no gradient, so nothing tells the terms apart.")
        return table, history
