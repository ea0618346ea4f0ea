"""Parameters that may be sharded; see tests/strategies for those that are."""

import torch
from torch import nn

from beft_lightning.parameters import clean_name, full_tensor, named_parameters, numel


def test_names_are_those_without_the_wrappers_of_fsdp() -> None:
    assert clean_name("_fsdp_wrapped_module.layer._fsdp_wrapped_module.bias") == "layer.bias"
    wrapped = nn.ModuleDict({"_fsdp_wrapped_module": nn.Linear(2, 3)})
    assert [name for name, _ in named_parameters(wrapped)] == ["weight", "bias"]


def test_tied_parameters_have_one_name_unless_asked() -> None:
    module = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    module["b"].weight = module["a"].weight
    assert [name for name, _ in named_parameters(module)] == ["a.weight"]
    assert [name for name, _ in named_parameters(module, remove_duplicate=False)] == ["a.weight", "b.weight"]


def test_an_ordinary_parameter_is_its_own_full_tensor() -> None:
    parameter = nn.Parameter(torch.arange(3.0))
    whole = full_tensor(parameter)
    assert not whole.requires_grad
    assert torch.equal(whole, parameter)
    assert numel(parameter) == 3
