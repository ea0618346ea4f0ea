"""The model inside a module, and what the table says of it."""

from typing import Any

import pytest
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, BertConfig, BertModel

from beft_lightning.bias import Attention, architecture_of, attention_of, find_bias_terms, pretrained_model
from beft_lightning.bias.scope import inert_terms
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


def test_a_type_outside_the_table_is_watched() -> None:
    model = AutoModel.from_config(AutoConfig.for_model("ctrl", n_layer=2, n_embd=8, n_head=2, dff=8, vocab_size=99))
    terms = find_bias_terms(model)
    assert terms["value"][1] is model.get_parameter("h.1.multi_head_attention.Wv.bias")
    assert architecture_of(model).layer == "h.{}"
    assert inert_terms(model) is None


def test_a_type_without_attention_is_an_error_that_shows_what_was_seen() -> None:
    model = AutoModel.from_config(AutoConfig.for_model("resnet", hidden_sizes=[8, 8], depths=[1, 1], embedding_size=8))
    with pytest.raises(ArchitectureError, match=r"no attention was seen.*layers were called(?s:.*)architecture:"):
        find_bias_terms(model)


def test_a_model_that_cannot_be_run_is_an_error_that_says_why() -> None:
    class NeedsMore(BertModel):
        def forward(self, secret: Tensor, **inputs: Any) -> Any:
            return super().forward(**inputs)

    config = type("OddConfig", (BertConfig,), {"model_type": "odd"})(num_hidden_layers=1, hidden_size=24)
    with pytest.raises(
        ArchitectureError, match=r"'odd': no small NeedsMore could be run .*secret(?s:.*)discover\(model"
    ):
        find_bias_terms(NeedsMore(config))


def test_several_architectures_in_one_model_are_shown() -> None:
    model = AutoModel.from_config(AutoConfig.for_model("bart", encoder_layers=2, decoder_layers=2, d_model=32))
    with pytest.raises(
        ArchitectureError, match=r"2 stacks(?s:.*)layer: encoder.layers(?s:.*)cross_query: encoder_attn"
    ):
        architecture_of(model)


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
