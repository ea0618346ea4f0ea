"""Finding, adding and freezing bias terms."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from beft_lightning.bias import Architecture, add_missing_biases, all_biases, find_bias_terms, freeze_except
from beft_lightning.bias.heads import head_parameters
from beft_lightning.errors import TermError
from tests.tiny import LAYERS, WIDTH, make_model

_IDS = torch.arange(4, 14).view(2, 5)


def trainable(module: nn.Module) -> list[str]:
    return [name for name, parameter in module.named_parameters() if parameter.requires_grad]


def test_missing_biases_are_zeros_and_change_nothing() -> None:
    model = make_model("llama", causal=True, biases=False).eval()
    assert find_bias_terms(model) == {}
    before = model(input_ids=_IDS).logits
    added = add_missing_biases(model, ["query", "key", "value", "mlp_out"])
    assert len(added) == 4 * LAYERS
    assert torch.equal(model(input_ids=_IDS).logits, before)
    terms = find_bias_terms(model)
    # Grouped-query attention: two of four heads have keys and values.
    assert [terms[t][0].numel() for t in ("query", "key", "value")] == [WIDTH, WIDTH // 2, WIDTH // 2]
    assert "model.layers.0.self_attn.v_proj.bias" in dict(model.named_parameters())


def test_added_biases_have_the_names_that_transformers_uses() -> None:
    model = make_model("llama", causal=True, biases=False)
    add_missing_biases(model, ["query", "key", "value", "attention_output"])
    assert set(model.state_dict()) == set(make_model("llama", causal=True, biases=True).state_dict())


def test_existing_biases_are_left_alone() -> None:
    model = make_model("opt")
    before = find_bias_terms(model)["value"][0]
    assert add_missing_biases(model, ["value"]) == []
    assert find_bias_terms(model)["value"][0] is before


def test_added_biases_are_fp32_over_half_precision_weights() -> None:
    model = make_model("llama", causal=True, biases=False).bfloat16()
    assert all(bias.dtype == torch.float32 for bias in add_missing_biases(model, ["value"]))


def test_only_linear_layers_can_be_given_a_bias() -> None:
    module = nn.ModuleDict({"h": nn.ModuleList([nn.ModuleDict({"norm": nn.RMSNorm(4)})])})
    with pytest.raises(TermError, match="RMSNorm without a bias"):
        add_missing_biases(module, ["norm"], Architecture(layer="h.{}", terms={"norm": "norm"}))


def test_freeze_except_leaves_exactly_the_named_terms() -> None:
    model = make_model("bert")
    names = freeze_except(model, ["value"])
    assert names == trainable(model)
    assert names == [f"bert.encoder.layer.{i}.attention.self.value.bias" for i in range(LAYERS)]


def test_freeze_except_takes_single_layers_and_further_names() -> None:
    model = make_model("bert")
    names = freeze_except(model, ["value.1", "query.0"], keep=["classifier.weight"])
    assert names == trainable(model)
    assert names == [
        "bert.encoder.layer.0.attention.self.query.bias",
        "bert.encoder.layer.1.attention.self.value.bias",
        "classifier.weight",
    ]


def test_two_equal_zero_biases_are_two_parameters() -> None:
    """Comparing parameters by value would confuse them."""
    model = make_model("llama", causal=True, biases=False)
    add_missing_biases(model, ["key", "value"])
    assert all("v_proj" in name for name in freeze_except(model, ["value"]))


@pytest.mark.parametrize("selection", ["worth", "value.7", "value.x"])
def test_what_the_model_lacks_is_an_error_that_lists_what_it_has(selection: str) -> None:
    with pytest.raises(TermError, match=r"(it has: query, key, value)|(layers of 'value': 0\.\.2)"):
        freeze_except(make_model("bert"), [selection])


def test_a_bias_free_model_lacks_every_term() -> None:
    with pytest.raises(TermError, match="add_missing_biases"):
        freeze_except(make_model("llama", biases=False), ["value"])


def test_nothing_trainable_is_an_error() -> None:
    with pytest.raises(TermError, match="nothing would be left trainable"):
        freeze_except(make_model("bert"), [])


@pytest.mark.parametrize(
    ("model_type", "options", "total", "one_term"),
    [
        ("bert", {"vocab_size": 28996}, 108_311_810, 11_522),
        (
            "bert",
            {
                "vocab_size": 28996,
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "intermediate_size": 4096,
            },
            333_581_314,
            27_650,
        ),
        (
            "roberta",
            {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1},
            124_647_170,
            601_346,
        ),
    ],
)
def test_parameter_counts_are_the_published_ones(
    model_type: str, options: dict[str, int], total: int, one_term: int
) -> None:
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(model_type, **options))
    freeze_except(model, ["value"], keep=head_parameters(model))
    assert sum(p.numel() for p in model.parameters()) == total
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == one_term


def test_all_biases_of_bert_base_and_value_bias_of_opt() -> None:
    with torch.device("meta"):
        bert = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("bert", vocab_size=28996))
        opt = AutoModelForCausalLM.from_config(AutoConfig.for_model("opt"))
    freeze_except(bert, [], keep=[*all_biases(bert), *head_parameters(bert)])
    assert sum(p.numel() for p in bert.parameters() if p.requires_grad) == 104_450
    freeze_except(opt, ["value"], keep=head_parameters(opt))
    assert sum(p.numel() for p in opt.parameters() if p.requires_grad) == 9_216


def test_all_biases_of_a_bias_free_model_are_an_error() -> None:
    with pytest.raises(TermError, match="no bias at all"):
        all_biases(make_model("llama", causal=True, biases=False))
