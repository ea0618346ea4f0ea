"""What discovery found goes into a checkpoint, and comes back without a look at the model."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from beft_lightning.bias import Architecture, Fused, architectures_of, find_bias_terms
from beft_lightning.bias.found import found_record, note_found, restore_found
from beft_lightning.errors import CheckpointError
from tests.tiny import make_model


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model can be watched."""

    def watch(*arguments: Any) -> Any:
        raise AssertionError("watched again")

    monkeypatch.setattr("beft_lightning.bias.lookup.architectures_of_model", watch)


def tiny(layers: int = 2) -> PreTrainedModel:
    """A model of a type that is not in the table."""
    config = AutoConfig.for_model(
        "starcoder2", vocab_size=24, hidden_size=16, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=16, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModel.from_config(config)
    return model


MINE = Architecture("layers.{}", terms={"value": "self_attn.v_proj"}, fused={"mlp.c_fc": Fused({"a": 1, "b": 3}, 2)})


def test_a_restored_model_has_the_terms_of_the_record_and_is_not_watched(unseen: None) -> None:
    fitted, fresh = (nn.ModuleDict({"net": tiny()}) for _ in range(2))
    note_found(fitted["net"], [MINE])
    record = found_record(fitted)
    assert record.keys() == {"net"}
    restore_found(fresh, record)
    assert architectures_of(fresh) == [MINE]
    assert sorted(find_bias_terms(fresh)) == ["a", "b", "value"]
    assert found_record(fresh) == record


def test_watching_is_noted_and_the_table_is_not() -> None:
    model = tiny()
    found = architectures_of(model)
    assert found_record(model)[""][0]["terms"].items() == found[0].terms.items()
    known = make_model("bert")
    architectures_of(known)
    assert found_record(known) == {}


@pytest.mark.parametrize(
    "record",
    [
        {"other": [{"layer": "layers.{}", "terms": {"value": "self_attn.v_proj"}, "fused": {}}]},
        {"net": [{"layer": "layers.{}", "terms": {"value": "attention.v_proj"}, "fused": {}}]},
        {"net": [{"layer": "layers.{}", "terms": {}, "fused": {"qkv": {"parts": {"value": 1, "key": 1}}}}]},
    ],
)
def test_a_path_that_is_missing_is_an_error(record: Any) -> None:
    model = nn.ModuleDict({"net": tiny(1)})
    with pytest.raises(CheckpointError, match=r"belongs to another model: its fit found .* has no layer"):
        restore_found(model, record)
    assert found_record(model) == {}
