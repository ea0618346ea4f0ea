"""A merged model is one of transformers, and computes what the tuned one does."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from beft_lightning.bias import ARCHITECTURES, Architecture, add_missing_biases, freeze_except
from beft_lightning.errors import ExportError
from beft_lightning.export.merging import make_plain, merge
from tests.tiny import LAYERS, VOCABULARY, WIDTH, logits, make_model

CAUSAL = AutoModelForCausalLM

#: Types without attention biases whose configuration can give them some.
SWITCHED = ["gemma", "gemma2", "granite", "llama", "olmo2", "qwen3"]
_SMALL: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "pad_token_id": 0,
    "attention_bias": False,
    "mlp_bias": False,
}


def decoder_of(model_type: str, **options: Any) -> tuple[PreTrainedModel, PreTrainedModel, dict[str, Tensor]]:
    """A tiny decoder, the same with trained value biases, and these."""
    torch.manual_seed(0)
    base: PreTrainedModel = CAUSAL.from_config(AutoConfig.for_model(model_type, **{**_SMALL, **options})).eval()
    tuned = copy.deepcopy(base)
    values = {}
    for name, child in tuned.named_modules():
        if name.endswith("v_proj"):
            assert isinstance(child, nn.Linear)
            child.bias = nn.Parameter(torch.randn(child.out_features))
            values[f"{name}.bias"] = child.bias.detach().clone()
    assert len(values) == LAYERS
    return base, tuned, values


@pytest.mark.parametrize("model_type", SWITCHED)
def test_added_biases_come_in_through_the_configuration(model_type: str, tmp_path: Path) -> None:
    base, tuned, values = decoder_of(model_type)
    before = {name: parameter.clone() for name, parameter in base.named_parameters()}
    merge(base, values)
    base.save_pretrained(tmp_path / "out")
    reloaded = CAUSAL.from_pretrained(tmp_path / "out")
    assert reloaded.config.attention_bias
    torch.testing.assert_close(logits(reloaded), logits(tuned), rtol=1e-5, atol=1e-6)
    assert torch.equal(logits(reloaded), logits(base))
    kept = dict(reloaded.named_parameters())
    assert all(torch.equal(kept[name], value) for name, value in before.items())
    assert all(not kept[name].any() for name in kept.keys() - before.keys() - values.keys())


def test_falcon_has_one_switch_for_all_its_biases(tmp_path: Path) -> None:
    config = AutoConfig.for_model("falcon", vocab_size=len(VOCABULARY), hidden_size=WIDTH, num_hidden_layers=2)
    config.num_attention_heads, config.bias = 4, False
    torch.manual_seed(0)
    base: PreTrainedModel = CAUSAL.from_config(config).eval()
    tuned = copy.deepcopy(base)
    name = "transformer.h.1.self_attention.query_key_value"
    owner = tuned.get_submodule(name)
    assert isinstance(owner, nn.Linear)
    owner.bias = nn.Parameter(torch.randn(owner.out_features))
    merge(base, {f"{name}.bias": owner.bias.detach()})
    base.save_pretrained(tmp_path / "out")
    reloaded = CAUSAL.from_pretrained(tmp_path / "out")
    assert reloaded.config.bias
    torch.testing.assert_close(logits(reloaded), logits(tuned), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model_type", ["gpt_neo", "gptj"])
def test_a_value_bias_moves_behind_the_attention(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    neo = Architecture("h.{}", {"value": "attn.attention.v_proj", "attention_output": "attn.attention.out_proj"})
    monkeypatch.setitem(ARCHITECTURES, "gpt_neo", neo)
    options = {"attention_types": [[["global", "local", "global"], 1]], "num_layers": LAYERS, "rotary_dim": 4}
    base, tuned, values = decoder_of(model_type, **options)
    before = logits(base)
    merge(base, values)
    base.save_pretrained(tmp_path / "out")
    reloaded = CAUSAL.from_pretrained(tmp_path / "out")
    assert not reloaded.state_dict().keys() & values.keys()
    torch.testing.assert_close(logits(reloaded), logits(tuned), rtol=1e-5, atol=1e-5)
    assert (logits(reloaded) - before).abs().max() > 1e-2


def test_heads_that_share_a_value_all_get_its_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLaMA as if it had no switch, with output projections that have a bias."""
    monkeypatch.setattr("beft_lightning.export.merging._SWITCHES", ())
    base, tuned, values = decoder_of("llama")
    for model in (base, tuned):
        add_missing_biases(model, ["attention_output"])
    merge(base, values)
    torch.testing.assert_close(logits(base), logits(tuned), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("model_type", "term"), [("gptj", "query"), ("mistral", "value")])
def test_a_bias_without_a_place_is_an_error_that_names_the_other_format(model_type: str, term: str) -> None:
    base, _, values = decoder_of(model_type, rotary_dim=4)
    if term != "value":
        values = {name.replace("v_proj", "q_proj"): value for name, value in values.items()}
    with pytest.raises(ExportError, match=f"a plain {model_type} model has no place for .* Use the format 'peft'"):
        merge(base, values)


@pytest.mark.parametrize(
    ("model_type", "exact"), [("gpt2", True), ("llama", True), ("falcon", True), ("bert", True), ("gptj", False)]
)
def test_a_fitted_model_is_made_plain_and_saved(model_type: str, exact: bool, tmp_path: Path) -> None:
    """Without it, from_pretrained reads another model: parts and added biases are unknown to it."""
    model = make_model(model_type, causal=model_type != "bert", biases=False)
    add_missing_biases(model, ["query", "key", "value"])
    torch.manual_seed(1)
    for name in freeze_except(model, ["value"]):
        torch.nn.init.normal_(model.get_parameter(name))
    expected = logits(model)
    auto_class = type(model)
    model.save_pretrained(tmp_path / "raw")
    if model_type != "bert":
        raw = auto_class.from_pretrained(tmp_path / "raw")
        assert not torch.allclose(logits(raw), expected, atol=1e-3)
    make_plain(model)
    model.save_pretrained(tmp_path / "plain")
    reloaded = auto_class.from_pretrained(tmp_path / "plain")
    torch.testing.assert_close(logits(reloaded), logits(model), rtol=0, atol=0)
    torch.testing.assert_close(logits(reloaded), expected, rtol=0 if exact else 1e-4, atol=0 if exact else 1e-5)


def test_a_model_that_cannot_be_made_plain_keeps_its_biases() -> None:
    model = make_model("mistral", causal=True)
    (bias, *_) = add_missing_biases(model, ["value"])
    torch.nn.init.normal_(bias)
    expected = logits(model)
    with pytest.raises(ExportError, match="has no place for"):
        make_plain(model)
    assert torch.equal(logits(model), expected)
