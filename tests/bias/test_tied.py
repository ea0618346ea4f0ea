"""Tied weights, be it modules or parameters, are counted, scored, trained and stored once."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from torch import Tensor, nn
from transformers import PreTrainedModel

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback
from beft_lightning.adapter import load_adapter
from beft_lightning.bias import find_bias_terms, freeze_except, fuse_biases
from beft_lightning.checkpoint import read_checkpoint
from tests.tiny import LAYERS, ForeignModule, logits, make_model, token_batches


class Siamese(ForeignModule):
    """One encoder under three names; the first is of a part of it."""

    def __init__(self) -> None:
        super().__init__()
        net = self.net
        del self.net
        self.encoder = net.base_model
        self.net = net
        self.other = net


def tied(model_type: str) -> PreTrainedModel:
    """A model whose second layer has the parameters, not the modules, of its first."""
    model = make_model(model_type)
    first, second, _ = next(child for child in model.modules() if isinstance(child, nn.ModuleList))
    for path, child in first.named_modules():
        for name, parameter in child.named_parameters(recurse=False):
            second.get_submodule(path).register_parameter(name, parameter)
    return model


def test_one_module_under_several_names(make_trainer: Any, tmp_path: Path) -> None:
    def fit(module: ForeignModule, callback: BiasSelectionCallback) -> Any:
        trainer = make_trainer(callbacks=[callback, AdapterCheckpoint()])
        seed_everything(1, verbose=False)
        trainer.fit(module, token_batches(8))
        return trainer

    module, plain = Siamese(), ForeignModule()
    callback, reference = BiasSelectionCallback(scope="other", batches=2), BiasSelectionCallback(batches=2)
    trainer = fit(module, callback)
    fit(plain, reference)
    assert callback.scores is not None
    assert reference.scores is not None
    assert {t: (e.layers, e.parameters) for t, e in callback.scores.terms.items()} == {
        t: (e.layers, e.parameters) for t, e in reference.scores.terms.items()
    }
    assert module.losses == plain.losses
    assert len(callback.trained) == len(reference.trained)
    trainer.save_checkpoint(tmp_path / "siamese.ckpt")
    fresh = Siamese()
    load_adapter(fresh, tmp_path / "siamese.ckpt")
    assert torch.equal(logits(fresh.other), logits(module.net))
    assert fresh.other is fresh.net


@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
def test_a_bias_that_two_layers_share_is_one(model_type: str, make_trainer: Any, tmp_path: Path) -> None:
    def module() -> ForeignModule:
        made = ForeignModule()
        made.net = tied(model_type)
        return made

    fitted, callback = module(), BiasSelectionCallback("fisher", terms=["value"], per_layer=True, keep=2, batches=2)
    before = logits(fitted.net)
    terms = find_bias_terms(fitted)
    assert list(terms["value"]) == list(range(LAYERS - 1))
    trainer = make_trainer(callbacks=[callback, AdapterCheckpoint()])
    trainer.fit(fitted, token_batches(8))
    assert callback.scores is not None
    assert callback.scores.terms["value"].parameters == sum(bias.numel() for bias in terms["value"].values())
    assert set(callback.selected or []) == {"value.0", "value.1"}
    values = [name for name in callback.trained if "attn" in name or "attention" in name]
    assert len(values) == LAYERS - 1
    first, second, third = next(child for child in fitted.net.modules() if isinstance(child, nn.ModuleList))
    for one, same, other in zip(*map(_biases, (first, second, third)), strict=True):
        assert torch.equal(one, same)
        assert not torch.equal(one, other) or not one.any()
    trainer.save_checkpoint(tmp_path / "tied.ckpt")
    trained = {*read_checkpoint(tmp_path / "tied.ckpt")["beft_trained"]}
    assert trained == {*callback.trained}
    fresh = module()
    assert torch.equal(logits(fresh.net), before)
    load_adapter(fresh, tmp_path / "tied.ckpt")
    assert torch.equal(logits(fresh.net), logits(fitted.net))
    assert len(list(fresh.parameters())) == len(list(fitted.parameters()))
    after = logits(fitted.net)
    fuse_biases(fitted)
    assert len(list(fitted.parameters())) == len(list(module().parameters()))
    assert torch.equal(logits(fitted.net), after)


def _biases(layer: nn.Module) -> list[Tensor]:
    found = (getattr(child, "bias", None) for child in layer.modules())
    return [bias for bias in found if isinstance(bias, Tensor)]


def test_a_list_of_one_layer_is_one_layer() -> None:
    model = make_model("bert")
    layers: Any = model.base_model.get_submodule("encoder.layer")
    layers[1] = layers[0]
    assert freeze_except(model, ["value.0", "value.1"]) == [
        f"bert.encoder.layer.{i}.attention.self.value.bias" for i in (0, 2)
    ]
