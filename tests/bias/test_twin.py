"""A small twin has the same layers as its model, few and narrow."""

from typing import Any

import pytest
import torch
from transformers import MODEL_MAPPING, AutoConfig, BertModel, LlamaModel, MllamaTextModel, PreTrainedConfig, Qwen2Model
from transformers.models.mllama.configuration_mllama import MllamaTextConfig

from beft_lightning.bias.twin import first_line, twins

LLAMA: dict[str, Any] = {
    "hidden_size": 512,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "vocab_size": 50_000,
}


def first_twin(model_class: Any, config: PreTrainedConfig) -> Any:
    problems: list[str] = []
    twin = next(twins(model_class, config, problems))
    assert problems == []
    return twin


def test_widths_are_divided_alike_and_layers_are_few() -> None:
    config = AutoConfig.for_model("llama", **LLAMA)
    small = first_twin(LlamaModel, config).config
    # A head is 64 wide, and 8 at the least: all is divided by 8.
    assert (small.hidden_size, small.head_dim, small.intermediate_size) == (64, 8, 128)
    assert (small.num_attention_heads, small.num_key_value_heads) == (8, 2)
    assert (small.num_hidden_layers, small.vocab_size) == (2, 1024)
    assert config.hidden_size == 512


def test_every_kind_of_layer_stays() -> None:
    """Though the first layer of window attention, in another entry, is beyond the last layer."""
    kinds = ["sliding_attention"] * 3 + ["full_attention"] + ["sliding_attention"] * 2
    config = AutoConfig.for_model("qwen2", **LLAMA, layer_types=kinds)
    small = first_twin(Qwen2Model, config).config
    assert small.num_hidden_layers == 4
    assert small.layer_types == kinds[:4]


def test_a_kind_of_layer_that_no_list_tells_of_stays() -> None:
    """Cross attention begins in the fourth of eight layers."""
    config = MllamaTextConfig(**{**LLAMA, "num_hidden_layers": 8}, cross_attention_layers=[3, 6], pad_token_id=0)
    twin = first_twin(MllamaTextModel, config)
    assert [hasattr(layer, "cross_attn") for layer in twin.layers] == [False, False, False, True]


def test_tokens_are_in_the_vocabulary_of_a_twin() -> None:
    config = AutoConfig.for_model("bert", vocab_size=99, eos_token_id=49407, pad_token_id=3)
    small = first_twin(BertModel, config).config
    assert (small.vocab_size, small.eos_token_id, small.pad_token_id) == (99, 98, 3)


def test_the_second_twin_has_fewer_heads_of_the_same_width() -> None:
    """A head may be divided into parts of a fixed width: Qwen2-VL's position has three."""
    _, second, *_ = twins(LlamaModel, AutoConfig.for_model("llama", **LLAMA), [])
    small = second.config
    assert (small.num_attention_heads, small.num_key_value_heads, small.head_dim) == (4, 1, 64)
    assert (small.hidden_size, small.intermediate_size, small.num_hidden_layers) == (256, 512, 2)


def test_the_last_twin_is_of_the_same_size() -> None:
    config = AutoConfig.for_model("bert", hidden_size=36, num_attention_heads=2, num_hidden_layers=3, vocab_size=99)
    config.intermediate_size = 40
    *_, last = twins(BertModel, config, [])
    assert last.config.to_dict() | {"dtype": None} == config.to_dict() | {"dtype": None}


def test_a_twin_is_always_the_same_and_leaves_the_random_numbers_alone() -> None:
    config = AutoConfig.for_model("llama", **LLAMA, dtype="bfloat16")
    before = torch.get_rng_state()
    one, other = first_twin(LlamaModel, config), first_twin(LlamaModel, config)
    assert torch.equal(torch.get_rng_state(), before)
    assert {parameter.dtype for parameter in one.parameters()} == {torch.float32}
    assert not one.training
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_what_cannot_be_built_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beft_lightning.bias.twin.MOST_PARAMETERS", 10)
    problems: list[str] = []
    config = AutoConfig.for_model("llama", **LLAMA)
    assert list(twins(LlamaModel, config, problems)) == []
    assert problems[0].startswith("a small twin would have ")
    assert len(problems) == 5

    def fail(config: Any) -> None:
        raise ValueError("no such width\nmore")

    problems.clear()
    assert list(twins(fail, config, problems)) == []  # type: ignore[arg-type]
    assert problems == ["ValueError: no such width"] * 5
    assert first_line(KeyError()) == "KeyError: "


@pytest.mark.parametrize("model_type", ["gemma3n_text", "llama4_text"])
def test_a_twin_of_a_large_model_is_small(model_type: str) -> None:
    """Gemma 3n has a second table of embeddings, and Llama 4 MLPs of two widths."""
    config: Any = AutoConfig.for_model(model_type)
    twin = first_twin(MODEL_MAPPING[type(config)], config)
    assert sum(parameter.numel() for parameter in twin.parameters()) < 100_000_000
