"""Adapters of peft's on the projections."""

import pytest
import torch

from beft_lightning.bias.terms import bias_owners
from beft_lightning.tuning.methods import set_up_tuning
from beft_lightning.tuning.peft_adapters import KINDS, PROJECTIONS
from tests.tiny import LAYERS, make_model

pytest.importorskip("peft", reason="adapters need peft")


@pytest.mark.parametrize("kind", KINDS)
def test_query_key_and_value_of_every_layer_are_adapted_and_nothing_else(kind: str) -> None:
    model = make_model("llama")
    owners = bias_owners(model)
    expected = {id(owner) for term in PROJECTIONS for owner in owners[term].values()}
    paths = {path for path, module in model.named_modules() if id(module) in expected}
    set_up_tuning(model, kind)
    trained = [name for name, p in model.named_parameters() if p.requires_grad and not name.startswith("score.")]
    assert {name.partition(".lora_")[0].partition(".vera_")[0].partition(".ia3_")[0] for name in trained} == paths
    assert len(paths) == 3 * LAYERS


def test_adapters_are_fp32_over_a_bf16_base() -> None:
    pytest.importorskip("peft", reason="adapters need peft")
    model = make_model("llama").bfloat16()
    set_up_tuning(model, "lora")
    assert {p.dtype for n, p in model.named_parameters() if p.requires_grad and "lora" in n} == {torch.float32}
