"""The statistics of a scoring pass are those of the formulas, written out by hand."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from beft_lightning.bias import find_bias_terms, split_fused_biases
from beft_lightning.bias.heads import head_parameters
from beft_lightning.callbacks import BiasSelectionCallback
from beft_lightning.scoring.functional import fisher_score, projection_score
from beft_lightning.scoring.reference_adam import ReferenceAdam
from tests.tiny import ForeignModule, token_batches

MakeTrainer = Callable[..., Trainer]


class Batches(torch.utils.data.Dataset[Any]):
    """Ready-made batches, always in the same order."""

    def __init__(self, count: int) -> None:
        torch.manual_seed(9)
        self.batches = [batch for _, batch in zip(range(count), token_batches(batch_size=8), strict=False)]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        return self.batches[index]

    def loader(self) -> DataLoader[Any]:
        return DataLoader(self, batch_size=None)


@pytest.mark.parametrize("model_type", ["bert", "gpt2", "bloom"])
def test_the_scores_are_those_of_an_all_bias_fine_tuning(model_type: str, make_trainer: MakeTrainer) -> None:
    """Written out by hand: four steps of the published rule on all biases and the head, dropout off."""
    off = {
        "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
        "gpt2": ("embd_pdrop", "resid_pdrop", "attn_pdrop"),
        "bloom": ("hidden_dropout", "attention_dropout"),
    }
    batches = Batches(4)
    module = ForeignModule(model_type, **dict.fromkeys(off[model_type], 0.0))
    by_hand = copy.deepcopy(module)
    split_fused_biases(by_hand)

    callback = BiasSelectionCallback("projection", batches=4, patience=0, learning_rate=1e-2)
    make_trainer(callbacks=[callback], max_epochs=0).fit(module, batches.loader())

    terms = find_bias_terms(by_hand)
    names = dict(by_hand.named_parameters())
    trained = [bias for layers in terms.values() for bias in layers.values()]
    trained += [names[name] for name in head_parameters(by_hand)]
    before = {term: [bias.detach().clone() for bias in layers.values()] for term, layers in terms.items()}
    optimizer = ReferenceAdam(trained, lr=1e-2)
    for ids, labels in batches.batches:
        for parameter in by_hand.parameters():
            parameter.grad = None
        nn.functional.cross_entropy(by_hand.extra(by_hand.net(input_ids=ids).logits), labels).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    assert callback.scores is not None
    for term in ("query", "value"):
        expected = [projection_score(b, a).item() for b, a in zip(before[term], terms[term].values(), strict=True)]
        assert callback.scores.terms[term].layers == pytest.approx(expected, rel=1e-4)
        assert min(expected) > 0


def test_fisher_is_taken_at_the_checkpoint_without_dropout(make_trainer: MakeTrainer) -> None:
    batches = Batches(3)
    module = ForeignModule(hidden_dropout_prob=0.5)
    by_hand = copy.deepcopy(module).eval()
    callback = BiasSelectionCallback(approach="fisher", batches=3, patience=0, clip_norm=None)
    make_trainer(callbacks=[callback], max_epochs=0).fit(module, batches.loader())

    value = find_bias_terms(by_hand)["value"]
    gradients: dict[int, list[Tensor]] = {index: [] for index in value}
    for ids, labels in batches.batches:
        loss = nn.functional.cross_entropy(by_hand.extra(by_hand.net(input_ids=ids).logits), labels)
        for index, gradient in zip(value, torch.autograd.grad(loss, list(value.values())), strict=True):
            gradients[index].append(gradient)
    assert callback.scores is not None
    expected = [fisher_score(drawn).item() for drawn in gradients.values()]
    assert callback.scores.terms["value"].layers == pytest.approx(expected, rel=1e-4)


class Exact(ForeignModule):
    """The loss in the precision of the model."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        ids, labels = batch
        return nn.functional.cross_entropy(self.extra(self.net(input_ids=ids).logits), labels)


@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
def test_sample_fisher_is_the_mean_squared_gradient_of_single_examples(
    model_type: str, make_trainer: MakeTrainer
) -> None:
    """In fp64, and with a short last batch, whose examples count as much as others."""
    torch.manual_seed(9)
    batches = Batches(3)
    batches.batches[2] = [part[:3] for part in batches.batches[2]]
    module = Exact(model_type).double()
    by_hand = copy.deepcopy(module).eval()
    callback = BiasSelectionCallback(approach="sample_fisher", batches=3, patience=0)
    make_trainer(callbacks=[callback], max_epochs=0, precision="64-true").fit(module, batches.loader())
    split_fused_biases(by_hand)
    for term, layers in find_bias_terms(by_hand).items():
        if term not in ("query", "key", "value"):
            continue
        gradients: dict[int, list[Tensor]] = {index: [] for index in layers}
        for ids, labels in batches.batches:
            for i in range(len(labels)):
                logits = by_hand.extra(by_hand.net(input_ids=ids[i : i + 1]).logits)
                loss = nn.functional.cross_entropy(logits, labels[i : i + 1])
                for index, gradient in zip(layers, torch.autograd.grad(loss, list(layers.values())), strict=True):
                    gradients[index].append(gradient)
        assert len(gradients[0]) == 19
        assert callback.scores is not None
        expected = [fisher_score(drawn).item() for drawn in gradients.values()]
        assert callback.scores.terms[term].layers == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
@pytest.mark.parametrize(
    ("approach", "expected"),
    [
        ("gradient", lambda drawn: drawn.mean(dim=0).norm()),
        ("adam_gain", lambda drawn: (drawn.mean(dim=0) ** 2 / (drawn**2).mean(dim=0).sqrt()).sum()),
        ("gradient_signal", lambda drawn: (drawn.mean(dim=0) ** 2).sum() / (drawn**2).mean(dim=0).sum()),
    ],
)
def test_gradients_of_batches_at_the_checkpoint_are_not_clipped(
    approach: Any, expected: Callable[[Tensor], Tensor], model_type: str, make_trainer: MakeTrainer
) -> None:
    torch.manual_seed(9)
    batches, module = Batches(3), Exact(model_type).double()
    by_hand = copy.deepcopy(module).eval()
    callback = BiasSelectionCallback(approach, batches=3, patience=0)
    trainer = make_trainer(callbacks=[callback], max_epochs=0, precision="64-true", gradient_clip_val=1e-3)
    trainer.fit(module, batches.loader())
    split_fused_biases(by_hand)
    assert callback.scores is not None
    for term in ("query", "value"):
        vectors = list(find_bias_terms(by_hand)[term].values())
        drawn = [torch.autograd.grad(by_hand.training_step(batch, 0), vectors) for batch in batches.batches]
        scores = [expected(torch.stack(gradients)).item() for gradients in zip(*drawn, strict=True)]
        assert callback.scores.terms[term].layers == pytest.approx(scores, rel=1e-9)
