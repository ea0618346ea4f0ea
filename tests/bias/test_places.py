"""The places of an attention's terms, and the layers that they are numbered by."""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from beft_lightning.bias import Fused
from beft_lightning.bias.places import AttentionPlace, attention_place, crossed, numbered
from beft_lightning.bias.watching import watch


class Attention(nn.Module):
    """Attention of one sequence to another."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv, self.out = nn.Linear(4, 4), nn.Linear(4, 8), nn.Linear(4, 4)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        key, value = self.kv(context).chunk(2, dim=-1)
        result: Tensor = self.out(scaled_dot_product_attention(self.q(x), key, value))
        return result


class Layer(nn.Module):
    """A layer of attention between embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention = nn.Embedding(9, 4), Attention()

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        embedded = self.embed(x)
        result: Tensor = self.attention(embedded, embedded if context is None else self.embed(context))
        return result


def place_in(module: nn.Module, *inputs: Tensor) -> AttentionPlace | None:
    seen = watch(module, lambda: module(*inputs))
    (attention,) = seen.attentions
    return attention_place(seen, attention)


def test_inputs_of_one_sequence_are_of_self_attention() -> None:
    assert place_in(Layer(), torch.arange(3)[None]) == AttentionPlace(
        {"query": "attention.q", "attention_output": "attention.out"},
        {"attention.kv": Fused({"key": 1, "value": 1})},
    )


def test_inputs_of_two_sequences_are_of_cross_attention() -> None:
    place = place_in(Layer(), torch.arange(3)[None], torch.arange(4, 8)[None])
    assert place == AttentionPlace(
        {"cross_query": "attention.q", "cross_output": "attention.out"},
        {"attention.kv": Fused({"cross_key": 1, "cross_value": 1})},
    )


def test_inputs_that_no_layer_computes_have_no_place() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(9, 4)

        def forward(self, x: Tensor) -> Tensor:
            embedded = self.embed(x)
            return scaled_dot_product_attention(embedded, embedded, embedded)

    assert place_in(Bare(), torch.arange(3)[None]) is None


def test_names_of_cross_attention_keep_shares_and_what_is_of_no_term() -> None:
    place = AttentionPlace({"attention_output": "o"}, {"qkv": Fused({"query": 2, "value": 1, "rest": 3}, groups=4)})
    assert crossed(place) == AttentionPlace(
        {"cross_output": "o"}, {"qkv": Fused({"cross_query": 2, "cross_value": 1, "rest": 3}, groups=4)}
    )


def test_terms_of_fused_layers_count_by_term() -> None:
    place = AttentionPlace({"query": "q"}, {"kv": Fused({"key": 1, "value": 1})})
    assert place.by_term == {"query": "q", "key": "kv", "value": "kv"}
    assert place.paths == ["q", "kv"]


def at(path: str) -> AttentionPlace:
    return AttentionPlace({"query": f"{path}.attn.q", "value": f"{path}.attn.v"})


INSIDE = {"query": "attn.q", "value": "attn.v"}


def test_numbers_of_stages_stand_for_any() -> None:
    places = [at(f"stages.{stage}.layers.{layer}") for stage in range(2) for layer in range(2)]
    assert list(numbered(places)) == [("stages.*.layers.{}", "stages.0.layers.0", AttentionPlace(INSIDE))]


def test_a_number_that_never_differs_is_a_name() -> None:
    places = [at(f"towers.1.layers.{layer}.0") for layer in range(2)]
    assert list(numbered(places)) == [
        ("towers.1.layers.{}", "towers.1.layers.0", AttentionPlace({t: f"0.{path}" for t, path in INSIDE.items()}))
    ]


def test_one_layer_is_numbered_and_an_attention_outside_of_layers_is_left_out() -> None:
    assert list(numbered([at("layers.0"), at("pooling")])) == [("layers.{}", "layers.0", AttentionPlace(INSIDE))]
