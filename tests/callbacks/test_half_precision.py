"""A user's module whose weights are in half precision, as many checkpoints are stored."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from beft_lightning import BiasSelectionCallback
from beft_lightning.bias import find_bias_terms
from beft_lightning.errors import BeftError
from tests.tiny import ForeignModule, token_batches

MakeTrainer = Callable[..., Trainer]


def in_half(dtype: torch.dtype, model_type: str = "bert", **options: Any) -> ForeignModule:
    """Somebody's module as ``from_pretrained`` gives its model: all parameters in the stored precision."""
    module = ForeignModule(model_type, **options)
    for parameter in module.net.parameters():
        parameter.data = parameter.data.to(dtype)
    return module


def half_free(module: ForeignModule) -> bool:
    return all(parameter.dtype == torch.float32 for parameter in module.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("term", ["value", "query"])
def test_small_steps_of_a_bias_are_not_lost(term: str, make_trainer: MakeTrainer) -> None:
    """Half a unit in the last place of a bf16 .5 is more than ten steps of 1e-4."""
    module = in_half(torch.bfloat16, learning_rate=1e-4)
    for bias in find_bias_terms(module)[term].values():
        bias.data.fill_(0.5)
    callback = BiasSelectionCallback("fixed", [term])
    make_trainer(callbacks=[callback], precision="bf16-mixed", max_epochs=6).fit(module, token_batches())
    assert half_free(module)
    for bias in find_bias_terms(module)[term].values():
        assert (bias != 0.5).all()
        assert (bias - 0.5).abs().max() < 1e-2


@pytest.mark.parametrize(("dtype", "remedy"), [(torch.bfloat16, "bf16-mixed"), (torch.float16, "16-mixed")])
@pytest.mark.parametrize("approach", ["projection", "fixed"])
def test_full_precision_over_half_weights_is_an_error(
    approach: str, dtype: torch.dtype, remedy: str, make_trainer: MakeTrainer
) -> None:
    trainer = make_trainer(callbacks=[BiasSelectionCallback(approach, ["value"])])
    with pytest.raises(BeftError, match=f"{dtype}.*'32-true'.*Set precision to '{remedy}'"):
        trainer.fit(in_half(dtype), token_batches())


@pytest.mark.parametrize("model_type", ["bert", "qwen2"])
def test_scores_are_those_of_fp32_biases(model_type: str, make_trainer: MakeTrainer) -> None:
    """The biases are cast before they are scored: casting them by hand changes nothing."""
    tables = []
    for by_hand in (False, True):
        torch.manual_seed(0)
        off = {"attention_dropout": 0.0} if model_type == "qwen2" else {}
        module = in_half(torch.bfloat16, model_type, **off)
        if by_hand:
            for name, parameter in module.net.named_parameters():
                if name.endswith("bias") or "LayerNorm" in name or "score" in name or "classifier" in name:
                    parameter.data = parameter.data.float()
        callback = BiasSelectionCallback("magnitude", batches=6, patience=0)
        make_trainer(callbacks=[callback], precision="bf16-mixed", max_epochs=0).fit(module, token_batches())
        assert callback.scores is not None
        tables.append({term: entry.layers for term, entry in callback.scores.terms.items()})
    assert tables[0] == tables[1]


def test_a_frozen_teacher_keeps_its_precision(make_trainer: MakeTrainer) -> None:
    module = in_half(torch.bfloat16)
    module.teacher = in_half(torch.bfloat16).net.requires_grad_(False)
    make_trainer(callbacks=[BiasSelectionCallback("fixed", ["value"])], precision="bf16-mixed").fit(
        module, token_batches()
    )
    assert {parameter.dtype for parameter in module.teacher.parameters()} == {torch.bfloat16}
