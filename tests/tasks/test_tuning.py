"""What each value of ``tune`` trains."""

import pytest

from beft_lightning.errors import TermError
from beft_lightning.tasks.tuning import WAYS, set_up_tuning
from tests.tiny import LAYERS, make_model

HEAD = ["bert.pooler.dense.bias", "classifier.weight", "classifier.bias"]


def tuned(tune: str | list[str], model_type: str = "bert") -> list[str]:
    model = make_model(model_type)
    set_up_tuning(model, tune)
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def test_a_term_is_trained_with_the_head() -> None:
    values = [f"bert.encoder.layer.{i}.attention.self.value.bias" for i in range(LAYERS)]
    assert tuned("value") == values + HEAD


@pytest.mark.parametrize("tune", ["query, value.0", ["query", "value.0"]])
def test_terms_can_be_listed(tune: str | list[str]) -> None:
    assert len(tuned(tune)) == LAYERS + 1 + len(HEAD)


def test_head_is_the_head_alone() -> None:
    assert tuned("head") == HEAD


def test_all_is_every_bias_and_the_head() -> None:
    names = tuned("all")
    assert {name for name in names if not name.endswith("bias")} == {"classifier.weight"}
    assert len(names) == sum(name.endswith("bias") for name, _ in make_model("bert").named_parameters()) + 1


def test_missing_biases_are_added() -> None:
    model = make_model("llama", biases=False)
    set_up_tuning(model, "value")
    assert sum(p.numel() for n, p in model.named_parameters() if n.endswith("v_proj.bias")) == LAYERS * 16


@pytest.mark.parametrize("tune", ["everything", "value,worth", ""])
def test_anything_else_is_an_error(tune: str) -> None:
    with pytest.raises(TermError, match="it can have: query, key, value"):
        tuned(tune)


@pytest.mark.parametrize("way", sorted(WAYS))
def test_every_way_trains_something_and_freezes_something(way: str) -> None:
    model = make_model("bert")
    WAYS[way](model)
    assert {parameter.requires_grad for parameter in model.parameters()} == {True, False}
