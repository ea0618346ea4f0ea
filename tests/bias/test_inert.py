"""Inert terms: what the table knows is what a probe finds."""

import pytest
import torch

from beft_lightning.bias import add_missing_biases, architecture_of, find_bias_terms, inert_by_gradient, is_inert
from tests.tiny import MODEL_FORMS, make_model, token_ids


@pytest.mark.parametrize("form", MODEL_FORMS)
def test_known_equals_probed(form: str) -> None:
    model = make_model(form).eval()
    architecture = architecture_of(model)
    add_missing_biases(model, architecture.paths)
    ids = token_ids(model)
    terms = find_bias_terms(model)
    known = set(architecture.inert or ())
    assert {t for t, layers in terms.items() if is_inert(layers.values(), lambda: model(input_ids=ids).logits)} == known
    loss = torch.nn.functional.cross_entropy(model(input_ids=ids).logits, torch.tensor([0, 1]))
    gradients = {t: torch.autograd.grad(loss, list(ls.values()), retain_graph=True) for t, ls in terms.items()}
    assert set(inert_by_gradient(gradients)) == known


def test_probing_restores_the_biases_exactly() -> None:
    model = make_model("bert").eval()
    biases = list(find_bias_terms(model)["value"].values())
    before = [bias.detach().clone() for bias in biases]
    is_inert(biases, lambda: model(input_ids=torch.tensor([[4, 5, 6]])).logits)
    assert all(torch.equal(a, b) for a, b in zip(before, biases, strict=True))


def test_a_failing_probe_restores_the_biases_too() -> None:
    bias = torch.nn.Parameter(torch.ones(3))
    calls = iter([torch.ones(1)])
    with pytest.raises(StopIteration):
        is_inert([bias], lambda: next(calls))
    assert torch.equal(bias, torch.ones(3))
