"""Statistics of bias vectors over training batches, and the scores they give."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from beft_lightning.bias import BiasTerms
from beft_lightning.bias.attention_heads import HeadedBias, pieces, whole_vector
from beft_lightning.errors import ScoringError
from beft_lightning.parameters import full_tensor
from beft_lightning.scoring.approaches import Approach
from beft_lightning.scoring.batches import examples
from beft_lightning.scoring.reference_adam import ReferenceAdam
from beft_lightning.scoring.training_loss import training_loss
from beft_lightning.strategies.adapter import AdapterStrategy


class VectorScore(NamedTuple):
    """The score of a bias vector, and those of its heads, where they are asked for."""

    whole: float
    heads: list[float]


#: Scores of the candidate terms: term -> layer -> scores of the vector.
ScoreTable = dict[str, dict[int, VectorScore]]


@dataclass(frozen=True)
class Observation:
    """Statistics of one batch: their sum over its observations, one tensor for each vector, and their number."""

    sums: list[Tensor]
    count: float


@dataclass(frozen=True)
class Observer:
    """Collects an approach's statistics of the candidate vectors over training batches.

    Args:
        approach: What to collect.
        strategy: Runs the training step, and averages over the processes.
        module: The module; its ``training_step`` gives the loss.
        candidates: The terms to score: term -> layer -> vector.
        optimizer: Over all that is trained while scoring; its gradients are clipped jointly.
        clip_norm: Gradient norm to clip to; ``None`` clips nothing.
        per_head: Whether heads that are set apart are scored, too.
    """

    approach: Approach
    strategy: AdapterStrategy
    module: LightningModule
    candidates: BiasTerms
    optimizer: ReferenceAdam
    clip_norm: float | None
    per_head: bool = False

    @property
    def vectors(self) -> list[nn.Parameter]:
        """What is scored: the candidate vectors, term by term and layer by layer, each before its heads."""
        biases = [bias for layers in self.candidates.values() for bias in layers.values()]
        return [vector for bias in biases for vector in (bias, *self._heads(bias))]

    def _heads(self, bias: nn.Parameter) -> list[nn.Parameter]:
        return bias.heads if self.per_head and isinstance(bias, HeadedBias) else []

    def tables(self, batches: Iterator[Any]) -> Iterator[ScoreTable]:
        """Yield the scores after each batch."""
        pretrained = [full_tensor(vector).clone() for vector in self.vectors]
        observe = self._examples if self.approach.single_examples else self._batches
        means: list[Tensor] = []
        count = 0.0
        for observation in observe(batches, pretrained):
            if not means or not self.approach.averages:
                means, count = [total / observation.count for total in observation.sums], observation.count
            else:
                count += observation.count
                pairs = zip(means, observation.sums, strict=True)
                means = [mean + (total - observation.count * mean) / count for mean, total in pairs]
            values = iter(map(self.approach.value, means))
            yield {
                term: {i: VectorScore(next(values), [next(values) for _ in self._heads(b)]) for i, b in layers.items()}
                for term, layers in self.candidates.items()
            }

    def _batches(self, batches: Iterator[Any], pretrained: list[Tensor]) -> Iterator[Observation]:
        """Yield the statistics of whole batches, whose gradients are averaged over the processes and clipped."""
        trained = self.optimizer.param_groups[0]["params"]
        for index, batch in enumerate(batches):
            step = index + 1
            self.optimizer.zero_grad(set_to_none=True)
            loss = training_loss(self.strategy, self.module, batch, index)
            if not _agree(self.strategy, loss is not None, all_ranks=False):
                continue  # Lightning skips such batches too.
            self._raise_together(self._backward(loss, step), step)
            self.strategy.average_gradients(trained)
            if self.clip_norm is not None and self.approach.clips:
                nn.utils.clip_grad_norm_(trained, self.clip_norm)
            if self.approach.fine_tunes:
                self.optimizer.step()
            yield Observation(self._statistics(pretrained), 1.0)

    def _examples(self, batches: Iterator[Any], pretrained: list[Tensor]) -> Iterator[Observation]:
        """Yield the statistics of single examples, summed over a batch and averaged over the processes.

        One example at a time goes through the user's own step. ``torch.func.vmap`` over a batch cannot take its place:
        the attention masks of transformers, ``self.log`` and metrics ask for values, which it does not have.
        """
        for step, batch in enumerate(batches):
            sums: list[Tensor] = [torch.zeros_like(s) for s in self._statistics(pretrained)]
            count, problem = 0.0, None
            for example in examples(batch):
                self.module.zero_grad(set_to_none=True)
                loss = training_loss(self.strategy, self.module, example, step)
                if loss is None:
                    continue
                if problem := self._backward(loss, step + 1):
                    break
                sums = [old + new for old, new in zip(sums, self._statistics(pretrained), strict=True)]
                count += 1
            self._raise_together(problem, step + 1)
            observation = self._averaged(sums, count)
            if observation.count:
                yield observation

    def _statistics(self, pretrained: list[Tensor]) -> list[Tensor]:
        pairs = zip(pretrained, self.vectors, strict=True)
        return [self.approach.statistic(before, whole_vector(vector)) for before, vector in pairs]

    def _averaged(self, sums: list[Tensor], count: float) -> Observation:
        """Average sums and count over the processes, in one message."""
        parts = [*(total.flatten() for total in sums), sums[0].new_tensor([count])]
        mean: Tensor = self.strategy.reduce(torch.cat(parts).to(self.strategy.root_device), reduce_op="mean")
        *means, counted = mean.split([part.numel() for part in parts])
        return Observation([m.view_as(total) for m, total in zip(means, sums, strict=True)], counted.item())

    def _backward(self, loss: Tensor | None, step: int) -> str | None:
        """Back-propagate; return the problem of the loss or its gradients, if there is one."""
        if loss is None:
            return f"`training_step` skipped scoring batch {step} in this process but not in others."
        if not torch.isfinite(loss):
            return (
                f"the loss of scoring batch {step} is {loss.item()}: lower the scoring learning rate, or look for bad "
                "values in the training data."
            )
        if loss.requires_grad:
            loss.backward()
        if all(piece.grad is None for vector in self.vectors for piece in pieces(vector)):
            return (
                "no gradient reaches the candidate biases: `training_step` must return a loss that depends on the "
                "model, not one that is detached or computed under no_grad."
            )
        return None

    def _raise_together(self, problem: str | None, step: int) -> None:
        """Raise in every process if there is a problem in any."""
        if not _agree(self.strategy, problem is None):
            raise ScoringError(problem or f"scoring batch {step} failed in another process; see its message.")


def _agree(strategy: AdapterStrategy, decision: bool, *, all_ranks: bool = True) -> bool:
    """Tell whether all processes (or any) decide alike, so that they go on or fail together."""
    return bool(strategy.reduce_boolean_decision(decision, all=all_ranks))
