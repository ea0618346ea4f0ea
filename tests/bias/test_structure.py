"""Giving a module the structure of a checkpoint; tests/test_adapter.py loads checkpoints."""

from dataclasses import asdict

import pytest
import torch
from torch import nn

from beft_lightning.bias import Fused, add_missing_biases, split_fused_biases
from beft_lightning.bias.fused import split
from beft_lightning.bias.structure import add_biases, fit_structure
from beft_lightning.errors import CheckpointError
from tests.tiny import make_model


def names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters()]


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_a_fresh_module_becomes_what_the_checkpoint_names(model_type: str) -> None:
    fitted, fresh = (make_model(model_type, biases=False) for _ in range(2))
    add_missing_biases(fitted, ["value"])
    split_fused_biases(fitted)
    ids = torch.arange(4, 14).view(2, 5)
    before = fresh.eval()(input_ids=ids).logits
    assert names(fresh) != names(fitted)
    fit_structure(fresh, names(fitted))
    assert sorted(names(fresh)) == sorted(names(fitted))
    assert torch.equal(fresh(input_ids=ids).logits, before)
    fit_structure(fresh, names(fitted))  # once more changes nothing
    assert sorted(names(fresh)) == sorted(names(fitted))


def test_a_bias_that_is_split_otherwise_is_refused_and_nothing_changes() -> None:
    """The order of parts counts; the unit of their shares does not."""
    module = nn.ModuleDict({"a": nn.Linear(2, 6), "b": nn.Linear(2, 3, bias=False)})
    split(module["a"], Fused({"query": 1, "key": 1, "value": 1}))
    own = names(module)
    for other in (
        Fused({"value": 1, "key": 1, "query": 1}),
        Fused({"query": 1, "key": 1, "value": 1}, groups=2),
        Fused({"query": 4, "key": 1, "value": 1}),
    ):
        with pytest.raises(CheckpointError, match=r"'a' divided into query \(1\), key.* and the checkpoint into"):
            fit_structure(module, [*own, "b.bias"], layouts={"a": asdict(other)})
        assert names(module) == own
    fit_structure(module, own, layouts={"a": asdict(Fused({"query": 2, "key": 2, "value": 2}))})
    assert names(module) == own


def test_only_missing_biases_of_linear_layers_are_added() -> None:
    module = nn.ModuleDict({"a": nn.Linear(2, 3, bias=False), "b": nn.Linear(2, 3), "c": nn.LayerNorm(2, bias=False)})
    added = add_biases(module, ["a.bias", "b.bias", "c.bias", "a.weight"])
    assert added == [module["a"]]
    assert torch.equal(module.get_parameter("a.bias"), torch.zeros(3))
