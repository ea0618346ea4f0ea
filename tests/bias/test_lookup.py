"""The model inside a module, and what the table says of it."""

import pytest
from torch import nn
from transformers import AutoConfig, AutoModel

from beft_lightning.bias import Attention, attention_of, find_bias_terms, pretrained_model
from beft_lightning.errors import ArchitectureError
from tests.tiny import make_model


@pytest.mark.parametrize(
    ("form", "facts"),
    [
        ("bert", Attention(takes_prefix=True)),
        ("bloom", Attention(takes_prefix=True, alibi=True)),
        ("deberta-v2", Attention()),
        ("falcon", Attention(takes_prefix=True, parallel_mlp=True)),
        ("falcon alibi", Attention(takes_prefix=True, alibi=True, parallel_mlp=True)),
        ("gpt_neo", Attention(window=256)),
        ("opt", Attention(takes_prefix=True, positions="mask")),
        ("roberta", Attention(takes_prefix=True, positions="padding")),
    ],
)
def test_facts_about_attention(form: str, facts: Attention) -> None:
    assert attention_of(make_model(form).config) == facts


def test_a_sliding_window_is_read_from_the_configuration_of_any_type() -> None:
    assert attention_of(make_model("mistral", sliding_window=16).config).window == 16
    assert attention_of(AutoConfig.for_model("starcoder2", sliding_window=8)) == Attention(window=8)


def test_an_unknown_type_is_an_error_that_lists_the_known_ones() -> None:
    model = AutoModel.from_config(AutoConfig.for_model("ctrl", n_layer=1, n_embd=8, n_head=2, dff=8, vocab_size=9))
    with pytest.raises(ArchitectureError, match=r"'ctrl' is unknown.*bert, .*opt.*(?s:.*)architecture:"):
        find_bias_terms(model)


def test_the_model_is_found_inside_any_module() -> None:
    model = make_model("bert")
    assert pretrained_model(nn.ModuleDict({"student": nn.Sequential(model)})) is model


def test_two_models_side_by_side_are_an_error() -> None:
    both = nn.ModuleDict({"teacher": make_model("bert"), "student": make_model("opt")})
    with pytest.raises(ArchitectureError, match="student, teacher"):
        find_bias_terms(both)


def test_a_module_without_a_model_is_an_error() -> None:
    with pytest.raises(ArchitectureError, match="contains no transformers model"):
        find_bias_terms(nn.Linear(2, 2))
