"""Select the bias term to train at the start of a fit."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import nn

from beft_lightning.adapter import remember_divided, remember_trained
from beft_lightning.bias import BiasTerms, add_missing_biases, find_bias_terms, freeze_except, set_heads_apart
from beft_lightning.bias.architecture import Architecture
from beft_lightning.bias.attention_heads import head_sizes
from beft_lightning.bias.heads import select_head
from beft_lightning.bias.lookup import outermost_models
from beft_lightning.bias.names import has_head, in_towers
from beft_lightning.bias.precision import half_dtype
from beft_lightning.bias.scope import inert_terms, models_in, scoped
from beft_lightning.callbacks.averaging import average_exactly, copy_again
from beft_lightning.callbacks.score_report import report
from beft_lightning.callbacks.selection_checks import FIXED, RACE, check_scoring, check_selection
from beft_lightning.callbacks.training_checks import (
    cast_trainable,
    check_no_adapters,
    check_optimizers,
    check_scorable,
    check_still_frozen,
)
from beft_lightning.errors import CheckpointError
from beft_lightning.parameters import clean_name, full_tensor, numel
from beft_lightning.scoring.approaches import APPROACHES
from beft_lightning.scoring.candidates import check_candidates
from beft_lightning.scoring.race.fit import give_rate, races_rates
from beft_lightning.scoring.race.scores import RaceScores
from beft_lightning.scoring.race.settings import RaceSettings
from beft_lightning.scoring.race.terms import race_terms
from beft_lightning.scoring.score_table import BiasScores
from beft_lightning.scoring.scoring_pass import ScoringPass
from beft_lightning.scoring.selection import SelectionRule, other_approaches, value_alone
from beft_lightning.scoring.watched_step import must_run, watch_training_step
from beft_lightning.strategies.adaptation import adapt, release
from beft_lightning.strategies.compatibility import check_half_weights, check_precision


class BiasSelectionCallback(Callback):
    """Score the bias terms on a few training batches, keep the best, freeze the rest.

    Works with any LightningModule that contains a transformers model, or attention that its ``training_step`` shows on
    the first batch (:func:`~beft_lightning.bias.discover`). Scoring runs the module's own
    ``training_step`` on its own training batches before the optimizer is built, in fp32 whatever the fit's precision,
    and leaves no trace: the fit starts from the untouched checkpoint. Biases, norms and the head become fp32 in any
    module; frozen matrices may be in half precision if the trainer's precision is mixed.

    Of several transformers models in a module, the one that is not entirely frozen is meant, or what ``scope`` names.
    All layers of the winning term are trained, whatever was frozen before; in the head, what was frozen stays so.

    It leaves ``scores.json``, ``scores.csv`` and ``scores.png`` in the run's folder and logs each term's score
    as ``bias_score/<term>``. It warns if the margin of the selected term over the next one lies within the spread of
    that margin over the batches (:func:`~beft_lightning.scoring.margin.margin_spread`).

    Args:
        approach: ``gradient_signal`` (share of the gradient that the batches have in common), ``projection`` (BEFT),
            ``magnitude`` (BitFit), ``fisher`` (mean squared gradient of batches), ``sample_fisher`` (of examples),
            ``gradient`` (norm of the mean gradient), ``adam_gain`` (fall of the loss that a step of Adam promises),
            ``race`` (train each for a few batches and compare), or ``fixed``: train ``terms`` without scoring.
        terms: Candidate terms; with ``fixed`` the terms, single layers (``value.3``) or heads (``value.3.h5``) to
            train. Models without biases are given zero ones for these terms.
        keep: How many of the candidates to train.
        per_layer: Choose single layers of terms instead of whole terms.
        budget: Instead of ``keep``: train at most this many bias values, in the best single layers or heads of terms.
        batches: Most training batches to score on.
        patience: Stop once the order of the terms is the same for so many batches; 0, single layers and heads use all.
        learning_rate: Learning rate of the scoring pass.
        clip_norm: Joint gradient norm to clip to while scoring; null clips nothing.
        head: What is trained beside the biases: ``auto`` (the task head and the pooler's bias), ``none``, or
            patterns of parameter names such as ``*.classifier.*``; ``auto`` may be one of them.
        scores: A ``scores.json`` to choose from instead of scoring again.
        architecture: Where the terms are, for attention that cannot be seen.
        scope: Name of the submodule to tune, such as ``vision_model``; a list keeps the terms of each apart
            (``vision_model.value``). By default the whole model.
        per_head: Choose single heads of terms (``value.3.h5``), each scored from the same batches.
        race: Settings of a race, which also chooses the fit's learning rate, unless the user gave one.

    Example::

        trainer = Trainer(callbacks=[BiasSelectionCallback()])
        trainer.fit(my_module, my_datamodule)
    """

    def __init__(
        self,
        approach: str = "gradient_signal",
        terms: Sequence[str] = ("query", "key", "value"),
        keep: int = 1,
        per_layer: bool = False,
        budget: int | None = None,
        batches: int = 32,
        patience: int = 8,
        learning_rate: float = 4e-4,
        clip_norm: float | None = 1.0,
        head: Literal["auto", "none"] | list[str] = "auto",
        scores: str | Path | None = None,
        architecture: Architecture | None = None,
        scope: str | list[str] | None = None,
        per_head: bool = False,
        race: RaceSettings = RaceSettings(),  # noqa: B008  # frozen
    ) -> None:
        self.rule = SelectionRule(keep, per_layer, budget, per_head)
        check_selection(approach, terms, head, len(scope) if isinstance(scope, list) else 1, self.rule, scores)
        check_scoring(batches, patience, learning_rate, clip_norm)
        self.approach = approach
        self.terms = list(dict.fromkeys(terms))
        self.batches = batches
        self.patience = patience
        self.learning_rate = learning_rate
        self.clip_norm = clip_norm
        self.head = head
        self.scores_file = scores
        self.architecture = architecture
        self.scope = scope
        self.race = race
        #: What is trained, once decided: names such as ``value`` or ``value.3``.
        self.selected: list[str] | None = None
        #: The scores the decision rests on, unless it was fixed.
        self.scores: BiasScores | None = None
        self.raced: RaceScores | None = None  # The same with the approach ``race``.
        #: Names of all parameters left trainable.
        self.trained: list[str] = []
        #: Where the scores are written; by default into the run's folder.
        self.folder: str | Path | None = None
        #: Wall-clock time of the scoring pass.
        self.seconds = 0.0
        self._found: Sequence[Architecture] | None = None
        self._headed = self.terms if per_head else list(filter(has_head, self.terms))

    @property
    def is_fixed(self) -> bool:
        """Whether the terms are trained as named, without scoring."""
        return self.approach == FIXED

    @property
    def needs_pretrained_biases(self) -> bool:
        """Whether the approach cannot rank biases that start at zero."""
        return self.approach in APPROACHES and APPROACHES[self.approach].needs_pretrained_biases

    @property
    def _places(self) -> dict[str, Any]:
        """Where the terms are, as arguments: described by the user, or found in a module without transformers model."""
        return {"architecture": self.architecture or self._found, "scope": self.scope}

    def _is_custom(self, module: nn.Module) -> bool:
        """Whether no transformers model tells where the terms are."""
        return self.architecture is not None or self._found is not None or not outermost_models(module)

    def freeze_largest(self, module: nn.Module) -> str:
        """Freeze all but the largest selection that is possible, without scoring.

        Args:
            module: The module; missing biases are added.

        Returns:
            What is trained, in words.
        """
        added = add_missing_biases(module, self.terms, **self._places)
        set_heads_apart(module, self._headed, **self._places)
        terms = find_bias_terms(module, **self._places)
        if self.is_fixed:
            selected, words = self.terms, ", ".join(self.terms)
        elif self.needs_pretrained_biases and added and "value" in self.terms:
            selected, words = ["value"], "value"  # Biases that all start at zero are not scored.
        else:
            sizes = {term: head_sizes(terms[term]) for term in in_towers(self.terms, terms)}
            selected, words = self.rule.largest(sizes), self.rule.describe(self.terms)
        freeze_except(module, selected, keep=self._head_names(module), **self._places)
        return words

    def state_dict(self) -> dict[str, Any]:
        """The decision, so that a resumed fit does not make it twice. Plain types only."""
        scores, raced = (each and each.to_dict() for each in (self.scores, self.raced))
        return {"selected": self.selected, "scores": scores, "race": raced, "scope": self.scope}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the decision of the run that is resumed."""
        before, asked = (state_dict["selected"], state_dict.get("scope")), (self.terms, self.scope)
        if before[1] != asked[1] or (self.is_fixed and before != asked):
            raise CheckpointError(
                f"the checkpoint was trained with {before[0]} in scope {before[1]}, this run asks for {asked[0]} in "
                f"scope {asked[1]}: resume with the same terms and scope, or start a new run."
            )
        self.selected = state_dict["selected"]
        self.scores = BiasScores.from_dict(state_dict["scores"]) if state_dict["scores"] else None
        self.raced = RaceScores.from_dict(state_dict["race"]) if state_dict.get("race") else None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Arrange for missing biases to be added once the model exists and, in a fit, for the selection."""
        strategy, self._found = adapt(trainer.strategy), None
        if stage == "fit":
            strategy.before_restore(lambda: check_no_adapters(pl_module, self.head))
        strategy.before_restore(lambda: self._prepare_biases(trainer, pl_module))
        if stage == "fit":
            check_precision(trainer)
            if not self.is_fixed:
                check_scorable(pl_module)
            self.selected, self.scores, self.raced, self.seconds = None, None, None, 0.0
            strategy.before_restore(lambda: copy_again(trainer, pl_module))
            strategy.before_optimizers(lambda: self._select_and_freeze(trainer, pl_module))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the trainer its strategy back."""
        release(trainer.strategy)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the optimizers and averages for what was selected, and set the learning rate that a race has chosen."""
        check_optimizers(trainer, pl_module, self.trained)
        if self.raced is not None and races_rates(pl_module, self.race):
            give_rate(trainer, self.raced.result.winner.rate)
        remember_trained(pl_module, self.trained)
        average_exactly(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Check at each epoch's first batch that nothing was unfrozen, be it by a callback or by the module."""
        if batch_idx == 0:
            check_still_frozen(pl_module, self.trained)

    def _prepare_biases(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add missing biases, and cast what may be trained to fp32, where the trainer's precision allows it."""
        if self.architecture is None and must_run(pl_module, self.scope):
            if trainer.state.fn != "fit":
                return  # A checkpoint brings the structure.
            self._cast(trainer, pl_module)  # Its step runs in the precision of the fit.
            self._found = watch_training_step(trainer, pl_module, self.scope)
        if added := add_missing_biases(pl_module, self.terms, **self._places):
            rank_zero_info(f"Added {len(added)} zero biases ({sum(map(numel, added)):,} values) where there were none.")
        # While the model is whole.
        remember_divided(pl_module, set_heads_apart(pl_module, self._headed, **self._places))
        self._cast(trainer, pl_module)

    def _cast(self, trainer: Trainer, pl_module: LightningModule) -> None:
        everything = [pl_module] if self._is_custom(pl_module) else models_in(pl_module, self.scope)
        for part in scoped(pl_module, self.scope).values() or everything:
            if (dtype := half_dtype(part)) is not None:
                cast_trainable(part, [pl_module.get_parameter(name) for name in self._head_names(pl_module)], dtype)
                check_half_weights(trainer, dtype)

    def _select_and_freeze(self, trainer: Trainer, pl_module: LightningModule) -> None:
        terms = find_bias_terms(pl_module, **self._places)
        head = self._head_names(pl_module)
        decided_before = self.selected is not None
        self.selected = self.selected or self._select(trainer, pl_module, terms, head)
        self.trained = list(map(clean_name, freeze_except(pl_module, self.selected, keep=head, **self._places)))
        if (scores := self.scores or self.raced) is not None and not decided_before:
            scores.selected = self.selected
            report(trainer, scores, self.folder)

    def _select(self, trainer: Trainer, pl_module: LightningModule, terms: BiasTerms, head: list[str]) -> list[str]:
        if self.is_fixed:
            return self.terms
        candidates = in_towers(self.terms, terms)
        models = [] if self._is_custom(pl_module) else models_in(pl_module, self.scope)
        model_type = " + ".join(model.config.model_type for model in models) or "custom"
        inert = None if self.scores_file is not None else inert_terms(pl_module, **self._places)
        check_candidates(candidates, terms, inert, model_type)
        if self.scores_file is not None:
            self._load_scores(self.scores_file, model_type, {term: len(terms[term]) for term in candidates})
            return self._chosen(terms)
        zero = [term for term in candidates if not any(full_tensor(bias).any() for bias in terms[term].values())]
        if self.needs_pretrained_biases and zero:
            selected = value_alone(self.approach, self.rule, candidates, zero)
            rank_zero_info(
                f"The model's biases all start at zero, where the {self.approach} score cannot rank them; training the "
                f"value bias, the paper's finding. To compare the terms, {other_approaches()}."
            )
            return selected
        start = time.perf_counter()
        if self.approach == RACE:
            running = {term: terms[term] for term in candidates}
            self.raced = race_terms(trainer, pl_module, running, head, inert, model_type, self.race)
        else:
            patience = self.patience if self.rule.of_terms else 0
            settings = (self.batches, patience, self.learning_rate, self.clip_norm, self.rule.per_head)
            scoring = ScoringPass(self.approach, *settings)
            self.scores = scoring.run(trainer, pl_module, terms, candidates, head, inert, model_type)
        self.seconds = time.perf_counter() - start
        return self._chosen(terms)

    def _load_scores(self, path: str | Path, model_type: str, layers: dict[str, int]) -> None:
        if self.approach == RACE:
            self.raced = RaceScores.load_for(path, model_type, list(layers))
        else:
            self.scores = BiasScores.load_for(path, self.approach, model_type, layers, self.rule.per_head)

    def _chosen(self, terms: BiasTerms) -> list[str]:
        if self.raced is not None:
            return [self.raced.result.winner.term]
        assert self.scores is not None
        return self.rule.select(self.scores, {term: head_sizes(terms[term]) for term in self.scores.terms})

    def _head_names(self, module: nn.Module) -> list[str]:
        return select_head(module, self.head, own_architecture=self._is_custom(module), scope=self.scope)
