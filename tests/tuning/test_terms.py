"""Chosen terms, all biases, the head alone."""

import pytest

from beft_lightning.errors import TermError
from beft_lightning.tuning import TuningMethod, set_up_tuning
from beft_lightning.tuning.terms import AllBiasTuning, HeadTuning, TermTuning
from tests.tiny import LAYERS, make_model

HEAD = ["bert.pooler.dense.bias", "classifier.weight", "classifier.bias"]


def tuned(method: TuningMethod) -> list[str]:
    model = make_model("bert")
    set_up_tuning(model, method)
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def test_a_term_is_trained_with_the_head() -> None:
    values = [f"bert.encoder.layer.{i}.attention.self.value.bias" for i in range(LAYERS)]
    assert tuned(TermTuning(("value",))) == values + HEAD


def test_terms_of_all_layers_and_of_one_can_be_combined() -> None:
    assert len(tuned(TermTuning(("query", "value.0")))) == LAYERS + 1 + len(HEAD)


def test_head_is_the_head_alone() -> None:
    assert tuned(HeadTuning()) == HEAD


def test_all_is_every_bias_and_the_head() -> None:
    names = tuned(AllBiasTuning())
    assert {name for name in names if not name.endswith("bias")} == {"classifier.weight"}
    assert len(names) == sum(name.endswith("bias") for name, _ in make_model("bert").named_parameters()) + 1


def test_missing_biases_are_added() -> None:
    model = make_model("llama", biases=False)
    set_up_tuning(model, TermTuning(("value",)))
    assert sum(p.numel() for n, p in model.named_parameters() if n.endswith("v_proj.bias")) == LAYERS * 16


def test_a_model_without_the_term_is_left_as_it_is() -> None:
    model = make_model("llama", biases=False)
    with pytest.raises(TermError, match="'worth' is no method of training and no term .*; the methods are: a"):
        set_up_tuning(model, TermTuning(("value", "worth"), methods=("a",)))
    assert not any(name.endswith("bias") for name, _ in model.named_parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
