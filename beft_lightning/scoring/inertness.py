"""Find inert terms by a batch of the fit, where no architecture tells which they are."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from beft_lightning.bias import BiasTerms, inert_by_gradient
from beft_lightning.bias.attention_heads import pieces
from beft_lightning.errors import ScoringError
from beft_lightning.parameters import full_tensor
from beft_lightning.scoring.batches import training_batches, training_data
from beft_lightning.scoring.isolation import eval_mode, leave_no_trace
from beft_lightning.scoring.training_loss import training_loss
from beft_lightning.strategies.adaptation import adapt
from beft_lightning.strategies.adapter import AdapterStrategy


def term_parameters(terms: BiasTerms) -> list[nn.Parameter]:
    """Return the parameters that the bias vectors of terms consist of."""
    return [piece for layers in terms.values() for bias in layers.values() for piece in pieces(bias)]


def probe_inert(
    strategy: AdapterStrategy, module: LightningModule, terms: BiasTerms, head: list[nn.Parameter], batch: Any
) -> tuple[str, ...]:
    """Return the terms whose gradient on a batch is nothing but rounding.

    Args:
        strategy: Runs the step.
        module: The module.
        terms: The bias terms to probe.
        head: The head's parameters.
        batch: The first training batch; ``None`` if there is none.

    Raises:
        ScoringError: If there is no batch, or it gives no gradient.
    """
    if batch is None:
        raise ScoringError("there is no training batch to probe for inert terms.")
    with eval_mode(module):
        loss = training_loss(strategy, module, batch, 0)
    if loss is None or not loss.requires_grad:
        raise ScoringError("the first training batch gives no loss with a gradient to probe for inert terms.")
    biases = term_parameters(terms)
    loss.backward()
    # The owners' weights are frozen, so the head stands for what is live, should no candidate be.
    strategy.average_gradients([*biases, *head])
    gradients = {p: torch.zeros_like(p) if p.grad is None else full_tensor(p.grad) for p in (*biases, *head)}
    by_term = {term: [gradients[piece] for piece in term_parameters({term: layers})] for term, layers in terms.items()}
    inert = inert_by_gradient(by_term, [gradients[parameter] for parameter in head])
    module.zero_grad(set_to_none=True)
    return inert


def find_inert(trainer: Trainer, module: LightningModule, terms: BiasTerms, head: list[str]) -> tuple[str, ...]:
    """Probe the first batch of the fit, and leave no trace.

    Args:
        trainer: A trainer inside ``fit``, at the point where its strategy lets the term be selected.
        module: The module.
        terms: The bias terms to probe.
        head: Names of the head's parameters.

    Raises:
        ScoringError: If there is no training batch, or it gives no gradient.
    """
    strategy, named = adapt(trainer.strategy), dict(module.named_parameters())
    parameters = [named[name] for name in head]
    trained = list(dict.fromkeys([*term_parameters(terms), *parameters]))
    with (
        strategy.scoring(trained),
        leave_no_trace(trainer, module, trained) as snapshot,
        training_data(trainer, snapshot) as data,
        torch.enable_grad(),
    ):
        return probe_inert(strategy, module, terms, parameters, next(training_batches(data), None))
