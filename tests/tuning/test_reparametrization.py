"""Biases as functions of fewer numbers."""

import pytest
import torch
from transformers import PreTrainedModel

from beft_lightning.errors import TermError
from beft_lightning.tuning import METHODS, set_up_tuning
from beft_lightning.tuning.reparametrization import (
    LowRankBias,
    ReparametrizedBiasTuning,
    ScalarBias,
    ScalarBiasTuning,
    VeraBias,
    grid,
    reparametrize_biases,
)
from tests.tiny import LAYERS, WIDTH, make_model


@pytest.mark.parametrize("width", [1, 2, 13, 16, 192, 384, 576, 768, 769, 2048, 4096])
def test_a_grid_holds_the_width_and_is_nearly_square(width: int) -> None:
    rows, columns = grid(width)
    assert width <= rows * columns < width + rows
    assert rows + columns <= 5 * width**0.5 + 1


def test_the_low_rank_update_is_that_of_the_formula() -> None:
    bias = torch.randn(12)
    kind = LowRankBias(bias, rank=2)
    down, up = torch.randn(2, 3), torch.randn(4, 2)
    expected = [bias[3 * i + j] + sum(up[i, k] * down[k, j] for k in range(2)) / 2 for i in range(4) for j in range(3)]
    torch.testing.assert_close(kind(down, up), torch.stack(expected))


def test_the_vera_update_is_that_of_the_formula() -> None:
    bias = torch.randn(12)
    kind = VeraBias(bias, rank=2)
    of_ranks, of_rows = torch.randn(2), torch.randn(4)
    expected = [
        bias[3 * i + j] + of_rows[i] * sum(kind.up[i, k] * of_ranks[k] * kind.down[k, j] for k in range(2))
        for i in range(4)
        for j in range(3)
    ]
    torch.testing.assert_close(kind(of_ranks, of_rows), torch.stack(expected))


REPARAMETRIZED = [name for name, method in METHODS.items() if issubclass(method, ReparametrizedBiasTuning)]


def tuned(name: str) -> PreTrainedModel:
    model = make_model("bert")
    options = {} if name == "scalar_bias" else {"rank": 2}
    set_up_tuning(model, METHODS[name].from_options(options))
    return model


@pytest.mark.parametrize(
    ("name", "numbers"), [("low_rank_bias", 2 * (8 + 4)), ("vera_bias", 2 + 8), ("scalar_bias", 1)]
)
def test_fewer_numbers_are_trained(name: str, numbers: int) -> None:
    assert grid(WIDTH) == (8, 4)
    trained = [p.numel() for n, p in tuned(name).named_parameters() if p.requires_grad and "parametrizations" in n]
    assert sum(trained) == LAYERS * numbers


@pytest.mark.parametrize("name", REPARAMETRIZED)
def test_a_checkpoint_restores_the_bias(name: str) -> None:
    """What is random in one process must come from the file in another."""
    first, second = tuned(name), tuned(name)
    for parameter in first.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    second.load_state_dict(first.state_dict())
    path = "bert.encoder.layer.1.attention.self.value"
    assert torch.equal(first.get_submodule(path).bias, second.get_submodule(path).bias)  # type: ignore[arg-type]


def test_a_term_that_does_not_exist_or_has_no_bias_is_an_error() -> None:
    model = make_model("llama", biases=False)
    with pytest.raises(TermError, match="has no bias of its own to re-parametrise"):
        reparametrize_biases(model, ["value"], ScalarBias)
    with pytest.raises(TermError, match="no term 'worth'"):
        reparametrize_biases(model, ["worth"], ScalarBias)
    with pytest.raises(TermError, match="no term 'worth' in this model; it can have: query"):
        ScalarBiasTuning(terms=["worth"]).check(model)


def test_the_rank_of_old_files_is_no_option_of_a_scalar() -> None:
    assert ScalarBiasTuning.from_options({"rank": 4, "terms": ["key"]}) == ScalarBiasTuning(terms=["key"])
