"""What is known of the programs that load an export: which added biases each reads."""

import warnings

import pytest

from beft_lightning.export.clients import CLIENTS, support, warn_of_losses

VALUE, OUTPUT = "model.layers.0.self_attn.v_proj.bias", "model.layers.0.self_attn.o_proj.bias"


def test_what_programs_read_depends_on_architecture_and_layer() -> None:
    assert support("llama", [VALUE, OUTPUT])["vLLM"].reads
    assert support("qwen3", [VALUE])["vLLM"].reads
    assert support("qwen3", [VALUE, OUTPUT])["vLLM"].missing == ["o_proj"]
    assert support("qwen3", [VALUE, OUTPUT])["SGLang"].reads
    assert support("a new type", [VALUE])["vLLM"].reads is None
    assert support("bert", []) == {}


def test_of_each_program_a_source_is_given_where_something_is_known() -> None:
    found = support("gemma", [VALUE])
    assert list(found) == ["transformers", *CLIENTS]
    assert found["vLLM"].source.endswith("/gemma.py")
    for facts in found.values():
        assert bool(facts.source) == (facts.reads is not None)


def test_a_loss_is_warned_of_with_program_layers_and_source_and_nothing_else() -> None:
    with pytest.warns(
        UserWarning, match=r"^vLLM has no place for the biases of o_proj .*no error \(read in https.*qwen3"
    ):
        warn_of_losses(support("qwen3", [VALUE, OUTPUT]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_losses(support("llama", [VALUE, OUTPUT]))
        warn_of_losses(support("a new type", [VALUE]))
