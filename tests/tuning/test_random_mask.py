"""Random parts of a model's weights, as the methods of training set them up."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from beft_lightning.errors import TermError
from beft_lightning.models import load_model
from beft_lightning.tuning import METHODS, set_up_tuning
from beft_lightning.tuning.random_mask import RandomMaskTuning, RandomRowTuning
from tests.tiny import make_model


@pytest.mark.parametrize(("method", "options"), [("random_mask", {"budget": 100}), ("random_rows", {})])
def test_a_random_mask_trains_the_entries_it_drew_and_the_seed_decides(method: str, options: dict[str, Any]) -> None:
    def moved(seed: int) -> dict[str, Tensor]:
        model = make_model("bert")
        weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        set_up_tuning(model, METHODS[method].from_options({**options, "seed": seed}))
        names = [name for name, p in model.named_parameters() if p.requires_grad and "original" in name]
        assert method != "random_mask" or sum(model.get_parameter(name).numel() for name in names) == 100
        changed = {}
        for name in names:
            owner, _, weight = name.removesuffix(".original").rpartition(".parametrizations.")
            with torch.no_grad():
                model.get_parameter(name).add_(1.0)
            changed[f"{owner}.{weight}"] = getattr(model.get_submodule(owner), weight) != weights[f"{owner}.{weight}"]
            assert changed[f"{owner}.{weight}"].sum() == model.get_parameter(name).numel()
        return changed

    first, again, other = moved(0), moved(0), moved(1)
    assert {name: mask.tolist() for name, mask in first.items()} == {n: mask.tolist() for n, mask in again.items()}
    assert {name: mask.tolist() for name, mask in first.items()} != {n: mask.tolist() for n, mask in other.items()}


def test_rows_of_gpt2s_transposed_layers_are_rows() -> None:
    model = make_model("gpt2")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    set_up_tuning(model, RandomRowTuning(seed=0))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".original"):
                parameter.add_(1.0)
    name = "transformer.h.0.mlp.c_fc"  # 32 inputs, 128 outputs: four rows of 32 or a column of 128
    weight = model.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    changed = weight.ne(before[f"{name}.weight"])
    assert changed.shape == (32, 128)
    assert changed.sum() == 128
    assert changed.all(dim=0).sum() == 4 or changed.all(dim=1).sum() == 1


@pytest.mark.parametrize("method", ["random_mask", "random_rows"])
def test_quantized_weights_have_no_entries_to_train(method: str, backbone: str) -> None:
    pytest.importorskip("bitsandbytes", reason="quantized weights need bitsandbytes")
    model = load_model(AutoModelForSequenceClassification, backbone, dtype="int8", num_labels=2)
    with pytest.raises(TermError, match="the weights are quantized"):
        set_up_tuning(model, METHODS[method]())


def test_the_default_mask_has_as_many_entries_as_there_are_biases() -> None:
    biases = sum(p.numel() for n, p in make_model("bert").named_parameters() if n.endswith("bias"))
    model = make_model("bert")
    set_up_tuning(model, RandomMaskTuning())
    values = [p for n, p in model.named_parameters() if n.endswith(".original")]
    assert sum(p.numel() for p in values) == biases
    assert all(p.requires_grad for p in values)
