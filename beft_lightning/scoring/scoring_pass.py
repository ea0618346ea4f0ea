"""The scoring pass: a few batches of all-bias fine-tuning (or gradients only) that leave no trace.

Everything runs in fp32 outside autocast and with the published update rule. Under bf16 autocast and the usual
epsilon, Adam turns the rounding noise of the inert key bias into steps as large as any other, and the projection
score then ranks it first.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.utils.data import DataLoader

from beft_lightning.bias import BiasTerms, inert_by_gradient
from beft_lightning.errors import ScoringError
from beft_lightning.parameters import full_tensor, numel
from beft_lightning.scoring.examples import examples
from beft_lightning.scoring.functional import fisher_score, magnitude_score, projection_score
from beft_lightning.scoring.isolation import eval_mode, leave_no_trace
from beft_lightning.scoring.reference_adam import ReferenceAdam
from beft_lightning.scoring.score_table import BiasScores, TermScore
from beft_lightning.strategies import AdapterStrategy, adapt
from beft_lightning.strategies.internals import OwnIterator, before_batch_transfer, set_up_training_data

Approach = Literal["projection", "magnitude", "fisher", "sample_fisher"]
_CHANGE_SCORES = {"projection": projection_score, "magnitude": magnitude_score}
#: Scores of the candidate terms, term -> layer -> score.
_Table = dict[str, dict[int, float]]


@dataclass(frozen=True)
class ScoringPass:
    """How to score.

    Args:
        approach: Which score.
        batches: Most training batches to use.
        patience: Stop once the order of the terms has not changed for this many batches; 0 never stops early.
        learning_rate: Learning rate of the all-bias fine-tuning.
        clip_norm: Joint gradient norm to clip to; ``None`` clips nothing.
    """

    approach: Approach
    batches: int
    patience: int
    learning_rate: float
    clip_norm: float | None

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
        """Score ``candidates`` on the user's own batches through the user's own ``training_step``.

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
        strategy = adapt(trainer.strategy)
        named = dict(module.named_parameters())
        biases = [bias for layers in terms.values() for bias in layers.values()]
        trained = list({id(p): p for p in [*biases, *(named[name] for name in head)]}.values())
        # Outside the isolation below: the fit reuses this loader, and must find the RNG as if it had made it itself.
        set_up_training_data(trainer)
        if trainer.train_dataloader is None:
            raise ScoringError("there are no training batches to score on (limit_train_batches is 0).")
        with strategy.scoring(trained), leave_no_trace(trainer, module, trained), torch.enable_grad():
            batches = _training_batches(trainer)
            if inert is None:
                first = next(batches)
                inert = _probe(strategy, module, terms, [named[name] for name in head], first)
                batches = itertools.chain([first], batches)
            scored = {term: terms[term] for term in candidates}
            # Fisher is the gradient at the checkpoint itself, without dropout.
            fisher = self.approach in ("fisher", "sample_fisher")
            with eval_mode(module) if fisher else nullcontext():
                table, course = self._score(strategy, module, scored, trained, batches)
        return BiasScores(
            approach=self.approach,
            model_type=model_type,
            steps=len(next(iter(course.values()))),
            terms={
                term: TermScore(
                    layers=list(layers.values()),
                    inert=term in inert,
                    parameters=sum(map(numel, terms[term].values())),
                    course=course[term],
                )
                for term, layers in table.items()
            },
        )

    def _score(
        self,
        strategy: AdapterStrategy,
        module: LightningModule,
        candidates: BiasTerms,
        trained: list[nn.Parameter],
        batches: Iterator[Any],
    ) -> tuple[_Table, dict[str, list[float]]]:
        """The scores, and each term's after each batch."""
        optimizer = ReferenceAdam(trained, lr=self.learning_rate)
        # For a training step that asks for its optimizer, to log the learning rate.
        strategy.optimizers = [optimizer]
        batches = itertools.islice(batches, self.batches)
        if self.approach == "sample_fisher":
            tables = _example_tables(strategy, module, candidates, batches)
        else:
            tables = self._tables(strategy, module, candidates, optimizer, batches)
        table: _Table = {}
        course: dict[str, list[float]] = {term: [] for term in candidates}
        order: list[str] = []
        unchanged = step = 0
        for step, table in enumerate(tables, start=1):
            if not all(math.isfinite(score) for layers in table.values() for score in layers.values()):
                raise ScoringError(
                    f"the scores are not finite after batch {step}: the gradients are not, or the scoring learning "
                    f"rate ({self.learning_rate:g}) is too high."
                )
            for term, layers in table.items():
                course[term].append(sum(layers.values()) / len(layers))
            latest = sorted(course, key=lambda term: -course[term][-1])
            unchanged = unchanged + 1 if latest == order else 0
            order = latest
            if self.patience and unchanged >= self.patience:
                break
        if not step:
            raise ScoringError("no training batch gave a loss to score on.")
        if not any(score > 0 for layers in table.values() for score in layers.values()):
            raise ScoringError("every score is zero: the biases have no gradient, so nothing tells the terms apart.")
        return table, course

    def _tables(
        self,
        strategy: AdapterStrategy,
        module: LightningModule,
        candidates: BiasTerms,
        optimizer: ReferenceAdam,
        batches: Iterator[Any],
    ) -> Iterator[_Table]:
        """The scores after each batch."""
        trained = optimizer.param_groups[0]["params"]
        before = {t: {i: full_tensor(bias).clone() for i, bias in of.items()} for t, of in candidates.items()}
        table: _Table = {term: dict.fromkeys(layers, 0.0) for term, layers in candidates.items()}
        step = 0
        for batch in batches:
            optimizer.zero_grad(set_to_none=True)
            loss = training_loss(strategy, module, batch, step)
            if not _all_agree(strategy, loss is not None, all_ranks=False):
                continue  # Lightning skips such batches too.
            step += 1
            problem = _backward(loss, candidates, step)
            if not _all_agree(strategy, problem is None):
                raise ScoringError(problem or f"scoring batch {step} failed in another process; see its message.")
            strategy.average_gradients(trained)
            if self.clip_norm is not None:
                nn.utils.clip_grad_norm_(trained, self.clip_norm)
            if self.approach == "fisher":
                for term, layers in candidates.items():
                    for index, bias in layers.items():
                        table[term][index] += (_mean_square(bias) - table[term][index]) / step
            else:
                optimizer.step()
                change = _CHANGE_SCORES[self.approach]
                for term, layers in candidates.items():
                    table[term] = {i: change(before[term][i], full_tensor(bias)).item() for i, bias in layers.items()}
            yield table


def _example_tables(
    strategy: AdapterStrategy, module: LightningModule, candidates: BiasTerms, batches: Iterator[Any]
) -> Iterator[_Table]:
    """The empirical Fisher information after each batch: the mean squared gradient of single examples, not clipped.

    One example at a time, through the user's own step. ``torch.func.vmap`` over a batch cannot take its place: the
    attention masks of transformers, ``self.log`` and metrics ask for values, which it does not have.
    """
    biases = [bias for layers in candidates.values() for bias in layers.values()]
    totals = [0.0] * (len(biases) + 1)  # the last one counts examples
    for step, batch in enumerate(batches):
        sums, problem = [0.0] * len(totals), None
        for example in examples(batch):
            module.zero_grad(set_to_none=True)
            loss = training_loss(strategy, module, example, step)
            if loss is None:
                continue
            if problem := _backward(loss, candidates, step + 1):
                break
            sums = [old + new for old, new in zip(sums, [*map(_mean_square, biases), 1.0], strict=True)]
        if not _all_agree(strategy, problem is None):
            raise ScoringError(problem or f"scoring batch {step + 1} failed in another process; see its message.")
        totals = [old + new for old, new in zip(totals, _mean_over_processes(strategy, sums), strict=True)]
        if totals[-1]:
            means = iter([total / totals[-1] for total in totals])
            yield {term: {index: next(means) for index in layers} for term, layers in candidates.items()}


def _mean_square(bias: nn.Parameter) -> float:
    return 0.0 if bias.grad is None else fisher_score([full_tensor(bias.grad)]).item()


def _mean_over_processes(strategy: AdapterStrategy, values: list[float]) -> list[float]:
    here = torch.tensor(values, dtype=torch.float64, device=strategy.root_device)
    mean: Tensor = strategy.reduce(here, reduce_op="mean")
    return mean.tolist()


def _backward(loss: Tensor | None, candidates: BiasTerms, step: int) -> str | None:
    """Back-propagate; returns what is wrong with the loss or its gradients, if anything is."""
    if loss is None:
        return f"`training_step` skipped scoring batch {step} in this process but not in others."
    if not torch.isfinite(loss):
        return (
            f"the loss of scoring batch {step} is {loss.item()}: lower the scoring learning rate, or look for bad "
            "values in the training data."
        )
    if loss.requires_grad:
        loss.backward()
    if all(bias.grad is None for layers in candidates.values() for bias in layers.values()):
        return (
            "no gradient reaches the candidate biases: `training_step` must return a loss that depends on the model, "
            "not one that is detached or computed under no_grad."
        )
    return None


def _all_agree(strategy: AdapterStrategy, decision: bool, *, all_ranks: bool = True) -> bool:
    """Whether all processes (or any) say yes, so that they go on or fail together."""
    return bool(strategy.reduce_boolean_decision(decision, all=all_ranks))


def training_loss(strategy: AdapterStrategy, module: LightningModule, batch: Any, index: int) -> Tensor | None:
    """The loss of the user's ``training_step``, in fp32 where the weights are; ``None`` if it skips the batch.

    Frozen weights in half precision need autocast to meet fp32 biases; then it is switched on for them alone.

    Raises:
        ScoringError: If the step returns something else.
    """
    device = strategy.root_device
    batch = before_batch_transfer(module, batch)
    batch = strategy.batch_to_device(batch, device)
    takes_index = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)
    half = next((p.dtype for p in module.parameters() if p.dtype in (torch.bfloat16, torch.float16)), None)
    with torch.autocast(device.type, dtype=half or torch.bfloat16, enabled=half is not None):
        try:
            output = strategy.scoring_step(batch, index) if takes_index else strategy.scoring_step(batch)
        except Exception as error:
            error.add_note(
                "Raised while scoring bias terms, before the fit: hooks such as on_fit_start and on_train_start have "
                "not run yet. If training_step needs them, use BiasSelectionCallback(approach='fixed', terms=[...])."
            )
            raise
    loss = output.get("loss") if isinstance(output, Mapping) else output
    if loss is not None and not isinstance(loss, Tensor):
        raise ScoringError(
            f"`training_step` returned {type(output).__name__} instead of a loss tensor (or a dict with 'loss') "
            f"for scoring batch {index + 1}."
        )
    return loss


def _training_batches(trainer: Trainer) -> Iterator[Any]:
    """The fit's own training batches, in its order, starting over when they run out."""
    loader = CombinedLoader(apply_to_collection(trainer.train_dataloader, DataLoader, _own_iterator), "max_size_cycle")
    limit = trainer.num_training_batches
    while True:
        batches = itertools.islice(iter(loader), None if limit == float("inf") else int(limit))
        empty = True
        for batch, _, _ in batches:
            empty = False
            yield batch
        if empty:
            return


def _own_iterator(loader: DataLoader[Any]) -> DataLoader[Any] | OwnIterator:
    return OwnIterator(loader) if loader.persistent_workers else loader


def _probe(
    strategy: AdapterStrategy, module: LightningModule, terms: BiasTerms, head: list[nn.Parameter], batch: Any
) -> tuple[str, ...]:
    with eval_mode(module):
        loss = training_loss(strategy, module, batch, 0)
    if loss is None or not loss.requires_grad:
        raise ScoringError("the first training batch gives no loss with a gradient to probe for inert terms.")
    biases = [bias for layers in terms.values() for bias in layers.values()]
    loss.backward()
    # The owners' weights are frozen, so the head stands for what is live, should no candidate be.
    strategy.average_gradients([*biases, *head])
    gradients = {p: torch.zeros_like(p) if p.grad is None else full_tensor(p.grad) for p in (*biases, *head)}
    by_term = {term: [gradients[bias] for bias in layers.values()] for term, layers in terms.items()}
    inert = inert_by_gradient(by_term, [gradients[parameter] for parameter in head])
    module.zero_grad(set_to_none=True)
    return inert
