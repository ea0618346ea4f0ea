"""Biases as functions of fewer numbers."""

import pytest
import torch

from beft_lightning.errors import TermError
from beft_lightning.tuning.reparametrization import KINDS, LowRankBias, VeraBias, grid, reparametrize_biases
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


@pytest.mark.parametrize(("kind", "numbers"), [("low_rank", 2 * (8 + 4)), ("vera", 2 + 8), ("scalar", 1)])
def test_fewer_numbers_are_trained(kind: str, numbers: int) -> None:
    assert grid(WIDTH) == (8, 4)
    created = reparametrize_biases(make_model("bert"), ["value"], kind, rank=2)
    assert sum(parameter.numel() for parameter in created) == LAYERS * numbers
    assert all(parameter.requires_grad for parameter in created)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_checkpoint_restores_the_bias(kind: str) -> None:
    """What is random in one process must come from the file in another."""
    first, second = make_model("bert"), make_model("bert")
    for parameter in reparametrize_biases(first, ["value"], kind, rank=2):
        torch.nn.init.normal_(parameter)
    reparametrize_biases(second, ["value"], kind, rank=2)
    second.load_state_dict(first.state_dict())
    path = "bert.encoder.layer.1.attention.self.value"
    assert torch.equal(first.get_submodule(path).bias, second.get_submodule(path).bias)  # type: ignore[arg-type]


def test_what_cannot_be_is_an_error() -> None:
    model = make_model("llama", biases=False)
    with pytest.raises(TermError, match="has no bias of its own to re-parametrise"):
        reparametrize_biases(model, ["value"], "scalar")
    with pytest.raises(TermError, match="no kind 'cubic'"):
        reparametrize_biases(model, ["value"], "cubic")
    with pytest.raises(TermError, match="no term 'worth'"):
        reparametrize_biases(model, ["worth"], "scalar")
