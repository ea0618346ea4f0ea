"""The precision of what may be trained."""

import pytest
import torch
from torch import nn

from beft_lightning.bias.heads import head_parameters
from beft_lightning.bias.precision import half_dtype, keep_fp32
from tests.tiny import make_model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("model_type", ["bert", "gpt2", "qwen2"])
def test_biases_norms_and_head_become_fp32_and_matrices_do_not(model_type: str, dtype: torch.dtype) -> None:
    model = make_model(model_type)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    values = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    head = head_parameters(model)
    cast = keep_fp32(model, head)
    assert set(head) <= set(cast)
    assert any(name.endswith("bias") for name in cast)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.float32 if name in cast else dtype)
        assert torch.equal(parameter.to(dtype), values[name])
    assert half_dtype(model) == dtype


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.BatchNorm1d(4), nn.InstanceNorm1d(4, affine=True)]
)
def test_norms_compute_under_autocast(norm: nn.Module) -> None:
    module = nn.Sequential(norm).bfloat16()
    keep_fp32(module)
    x = torch.randn(4, 4, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert module(x).shape == x.shape
    assert {value.dtype for value in module.state_dict().values() if value.is_floating_point()} == {torch.float32}


def test_a_model_in_fp32_is_left_alone() -> None:
    model = make_model("bert")
    assert keep_fp32(model, head_parameters(model)) == []
    assert half_dtype(model) is None
