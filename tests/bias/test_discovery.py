"""Bias terms are found by watching: the same as in the table, and right by behaviour for other types."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModel

from beft_lightning.bias import Architecture, Fused, add_missing_biases, discover, find_bias_terms, freeze_except
from beft_lightning.bias.discovery import architectures_of_twin
from beft_lightning.errors import ArchitectureError
from benchmarks.architectures import prove
from tests.tiny import MODEL_FORMS, make_model


def marked(model: nn.Module, architecture: Any) -> dict[str, dict[int, list[Tensor]]]:
    """Every vector of each term, told by the numbers that the model's parameters hold."""
    terms = find_bias_terms(model, architecture)
    return {term: {i: [bias.detach().flatten()] for i, bias in layers.items()} for term, layers in terms.items()}


@pytest.mark.parametrize("form", MODEL_FORMS)
def test_watching_finds_what_the_table_says(form: str) -> None:
    model = make_model(form)
    add_missing_biases(model, ["query", "value"])
    with torch.no_grad():
        for number, (name, parameter) in enumerate(model.named_parameters()):
            if name.endswith(("bias", "original0", "original1", "original2")):
                parameter.copy_(number * 1000 + torch.arange(float(len(parameter))))
    watched, table = marked(model, architectures_of_twin(model)), marked(model, None)
    assert watched.keys() == table.keys()
    for term, layers in table.items():
        assert list(watched[term]) == list(layers)
        for index, (vector,) in layers.items():
            assert torch.equal(watched[term][index][0], vector)


@pytest.mark.parametrize(
    "model_type",
    "albert bart clip dinov2 gemma3_text gpt_bigcode hubert luke modernbert mpnet mpt smollm3 starcoder2 swin vit "
    "wav2vec2 whisper".split(),
)
def test_a_type_outside_the_table_works(model_type: str) -> None:
    """Each vector changes its own input of attention alone; ten steps move the value biases and nothing else."""
    row = prove(model_type)
    assert not row.reason
    assert set(row.found) >= {"query", "key", "value"}
    assert row.scored
    assert row.trained


def tiny(model_type: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return AutoModel.from_config(AutoConfig.for_model(model_type, **options))


def test_two_towers_are_found_and_one_can_be_chosen() -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    model = tiny("clip", text_config=sizes, vision_config={**sizes, "num_hidden_layers": 3})
    assert list(find_bias_terms(model)["value"]) == [0, 1, 2, 3, 4]
    towers = {one.layer.partition(".")[0]: one for one in architectures_of_twin(model)}
    names = freeze_except(model, ["value"], architecture=towers["text_model"])
    assert names == [f"text_model.encoder.layers.{i}.self_attn.v_proj.bias" for i in range(2)]


def test_a_shared_layer_counts_once() -> None:
    model = tiny(
        "albert", hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=48, vocab_size=99
    )
    assert list(find_bias_terms(model)["value"]) == [0]


def test_the_model_itself_is_not_run() -> None:
    """On the meta device it has no values, and its precision does not matter."""
    with torch.device("meta"):
        model = tiny("starcoder2", num_hidden_layers=5).bfloat16()
    assert [bias.shape for bias in find_bias_terms(model)["value"].values()] == [(256,)] * 5
    assert freeze_except(model, ["value.4"]) == ["layers.4.self_attn.v_proj.bias"]


def test_biases_of_a_bias_free_type_are_added() -> None:
    model = tiny("gemma3_text", hidden_size=32, num_hidden_layers=3, intermediate_size=48, vocab_size=99).eval()
    ids = torch.arange(5, 11)[None]
    before = model(input_ids=ids).last_hidden_state
    assert find_bias_terms(model) == {}
    assert len(add_missing_biases(model, ["value", "query"])) == 6
    assert torch.equal(model(input_ids=ids).last_hidden_state, before)
    assert [n for n, p in model.named_parameters() if n.endswith("q_proj.bias")] == [
        f"layers.{i}.self_attn.q_proj.bias" for i in range(3)
    ]


def torch_transformer(**options: Any) -> nn.Transformer:
    torch.manual_seed(0)
    return nn.Transformer(16, 2, 2, 2, 24, dropout=0.0, batch_first=True, **options).eval()


@pytest.mark.parametrize("frozen", [False, True])
def test_the_attention_of_torch(frozen: bool) -> None:
    model = torch_transformer().requires_grad_(not frozen)
    found = discover(model, lambda: model(torch.randn(1, 5, 16), torch.randn(1, 4, 16)))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    terms = find_bias_terms(model, found)
    assert [len(terms[term]) for term in ("value", "cross_value", "mlp_in", "attention_output", "cross_output")] == [
        4,
        2,
        4,
        4,
        2,
    ]
    with torch.no_grad():
        terms["cross_value"][1].fill_(7)
    weights = model.get_parameter("decoder.layers.1.multihead_attn.in_proj_bias")
    assert torch.equal(weights.view(3, 16)[2], torch.full((16,), 7.0))
    with torch.no_grad():
        weights.zero_()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_part_of_the_attention_of_torch_trains_alone() -> None:
    model = torch_transformer(bias=False).train()  # its fast path of inference knows no layers without biases
    inputs = torch.randn(1, 5, 16), torch.randn(1, 4, 16)
    before = model(*inputs)
    found = discover(model, lambda: model(*inputs))
    assert len(add_missing_biases(model, ["value"], found)) == 4 * 3
    assert torch.equal(model(*inputs), before)
    names = freeze_except(model, ["value"], architecture=found)
    assert names[0] == "encoder.layers.0.self_attn.parametrizations.in_proj_bias.original2"
    assert len(names) == 4
    model(*inputs).sum().backward()
    grads = [model.get_parameter(name).grad for name in names]
    assert all(grad is not None and grad.any() for grad in grads)


class Block(nn.Module):
    """Attention as one writes it oneself; ``attend`` takes query, key and value."""

    def __init__(self, attend: Callable[..., Tensor], layout: str = "fused", width: int = 8) -> None:
        super().__init__()
        self.attend, self.layout = attend, layout
        self.qkv = nn.Linear(width, (3 if layout == "fused" else 2) * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).chunk(3 if self.layout == "fused" else 2, dim=-1)
        return x + self.out(self.attend(parts[0], parts[-2], parts[-1]))


class Net(nn.Module):
    """Two blocks."""

    def __init__(self, attend: Callable[..., Tensor], layout: str = "fused") -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(attend, layout) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def spelled_out(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.transpose(-1, -2) / 8**0.5).softmax(-1) @ value


def in_einsum(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.einsum("bij,bjd->bid", torch.softmax(torch.einsum("bid,bjd->bij", query, key), -1), value)


def in_keywords(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return scaled_dot_product_attention(key=key, value=value, query=query)


@pytest.mark.parametrize("attend", [scaled_dot_product_attention, spelled_out, in_einsum, in_keywords])
@pytest.mark.parametrize("compiled", [False, True])
def test_attention_of_ones_own(attend: Callable[..., Tensor], compiled: bool) -> None:
    net = Net(attend)
    if compiled:
        net.compile()
    found = discover(net, lambda: net(torch.randn(1, 5, 8)))
    layout = Fused({"query": 1, "key": 1, "value": 1})
    assert found == [Architecture("blocks.{}", terms={"attention_output": "out"}, fused={"qkv": layout})]


def test_a_projection_that_is_query_and_key_at_once_leaves_no_term() -> None:
    net = Net(scaled_dot_product_attention, "shared")
    with pytest.raises(
        ArchitectureError, match=r"2 attentions were seen.*blocks.0.qkv(?s:.*)layer:(?s:.*)Architecture\("
    ):
        discover(net, lambda: net(torch.randn(1, 5, 8)))


def test_a_configuration_may_hold_infinite_numbers() -> None:
    """JSON has none, and transformers writes them in its own way."""
    config = AutoConfig.for_model(
        "falcon_h1", vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        head_dim=8, intermediate_size=16, mamba_d_ssm=16, mamba_n_heads=2, mamba_d_head=8, mamba_d_state=8,
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    (found,) = architectures_of_twin(model)
    assert found.terms["value"] == "self_attn.v_proj"
