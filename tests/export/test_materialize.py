"""Parametrized tensors become plain ones."""

import pytest
import torch

from beft_lightning.bias.parametrized import MARK, plain_name
from beft_lightning.export.materialize import materialize
from beft_lightning.tuning import METHODS
from tests.tiny import logits, make_model


@pytest.mark.parametrize("name", ["random_rows", "low_rank_bias", "scalar_bias"])
def test_the_model_computes_the_same_with_its_plain_tensors(name: str) -> None:
    model = make_model("bert")
    plain = list(model.state_dict())
    METHODS[name]().apply(model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    parts = {plain_name(key) for key in model.state_dict() if MARK in key}
    expected = logits(model)
    values = materialize(model)
    assert values.keys() == parts
    assert sorted(model.state_dict()) == sorted(plain)
    assert torch.equal(logits(model), expected)
