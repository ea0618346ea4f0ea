"""The precision of what may be trained."""

import pytest
import torch

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


def test_a_model_in_fp32_is_left_alone() -> None:
    model = make_model("bert")
    assert keep_fp32(model, head_parameters(model)) == []
    assert half_dtype(model) is None
