"""Train a bias as its pretrained value plus a function of fewer numbers: low rank, VeRA, or one scalar.

The published experiments (BEFT, LoRA-type re-parameterised biases) write the 768 values of a bias as a matrix of
32 x 24. Here any width is possible, and all methods start from the pretrained bias itself; the published VeRA and
scalar variants start from other values.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from beft_lightning.bias import add_missing_biases
from beft_lightning.bias.architectures import Architecture
from beft_lightning.bias.owners import owners_of
from beft_lightning.bias.parametrized import parametrize_tensor
from beft_lightning.errors import TermError
from beft_lightning.tuning.method import TuningMethod


@dataclass(frozen=True)
class ReparametrizedBiasTuning(TuningMethod):
    """Biases as functions of fewer numbers.

    Args:
        terms: Names of bias terms; biases that the model lacks are added as zeros.
    """

    looks_for_terms: ClassVar[bool] = True
    terms: list[str] = field(default_factory=lambda: ["value"])

    @abstractmethod
    def delta(self, bias: Tensor) -> nn.Module:
        """Return the parametrization of a bias of shape ``(d,)``."""

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Make the method from ``tune_options``, also those of old files.

        They may hold ``terms: null`` for the default, and a ``rank`` for a method that has none.
        """
        known = {field.name for field in cls.option_fields()}
        without_effect = {"rank"} - known | ({"terms"} if options.get("terms") is None else set())
        return super().from_options({name: value for name, value in options.items() if name not in without_effect})

    def check(self, model: nn.Module) -> None:
        """Check that the model has the terms.

        Raises:
            TermError: If there is no such term.
        """
        owners_of(self.terms, model)

    def apply(self, model: nn.Module) -> None:
        """Replace the biases, and train the new numbers alone."""
        add_missing_biases(model, self.terms)
        model.requires_grad_(False)
        for parameter in reparametrize_biases(model, self.terms, self.delta):
            parameter.requires_grad_(True)


@dataclass(frozen=True)
class RankedBiasTuning(ReparametrizedBiasTuning):
    """Biases as functions of low rank.

    Args:
        terms: Names of bias terms; biases that the model lacks are added as zeros.
        rank: Rank of the update of a bias, written as a nearly square matrix.
    """

    rank: int = 8

    def __post_init__(self) -> None:
        """Check the rank.

        Raises:
            TermError: If it is not positive.
        """
        if self.rank < 1:
            raise TermError(f"the rank of a re-parametrised bias must be at least 1, not {self.rank}.")


@dataclass(frozen=True)
class LowRankBiasTuning(RankedBiasTuning):
    """Biases with LoRA's update: the product of two small matrices.

    Args:
        terms: Names of bias terms; biases that the model lacks are added as zeros.
        rank: Rank of the update of a bias, written as a nearly square matrix.
    """

    name: ClassVar[str] = "low_rank_bias"

    def delta(self, bias: Tensor) -> nn.Module:
        """Return a :class:`LowRankBias`."""
        return LowRankBias(bias, self.rank)


@dataclass(frozen=True)
class VeraBiasTuning(RankedBiasTuning):
    """Biases with VeRA's update: vectors that scale two frozen random matrices.

    Args:
        terms: Names of bias terms; biases that the model lacks are added as zeros.
        rank: Rank of the frozen matrices.
    """

    name: ClassVar[str] = "vera_bias"

    def delta(self, bias: Tensor) -> nn.Module:
        """Return a :class:`VeraBias`."""
        return VeraBias(bias, self.rank)


@dataclass(frozen=True)
class ScalarBiasTuning(ReparametrizedBiasTuning):
    """Biases plus one trained number for each layer.

    Args:
        terms: Names of bias terms; biases that the model lacks are added as zeros.
    """

    name: ClassVar[str] = "scalar_bias"

    def delta(self, bias: Tensor) -> nn.Module:
        """Return a :class:`ScalarBias`."""
        return ScalarBias(bias)


def grid(width: int) -> tuple[int, int]:
    """Return rows and columns of a nearly square matrix that holds ``width`` values, with as few unused as possible.

    >>> grid(768), grid(384), grid(13)
    ((32, 24), (24, 16), (4, 4))
    """
    columns = next(n for n in range(math.isqrt(width), 0, -1) if width % n == 0)
    if 2 * columns < math.isqrt(width):  # a prime width would leave a single row, which has no rank to lower
        rows = math.ceil(math.sqrt(width))
        return rows, math.ceil(width / rows)
    return width // columns, columns


class _Delta(nn.Module):
    """Parametrization of a bias as the frozen pretrained bias, shape ``(d,)``, plus an update."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.pretrained = nn.Parameter(bias.detach().clone(), requires_grad=False)

    def _added(self, values: Tensor) -> Tensor:
        return self.pretrained + values.flatten()[: len(self.pretrained)]


class LowRankBias(_Delta):
    """LoRA's update (arXiv 2106.09685), flattened: ``bias + B A / rank``, from a random ``A`` and a zero ``B``.

    Args:
        bias: The pretrained bias, shape ``(d,)``.
        rank: Rank of the update, seen as a matrix of about ``sqrt(d)`` rows and columns.
    """

    def __init__(self, bias: Tensor, rank: int) -> None:
        super().__init__(bias)
        self.rank = rank

    def forward(self, down: Tensor, up: Tensor) -> Tensor:
        """Return the bias from the factors, shapes ``(rank, columns)`` and ``(rows, rank)``."""
        return self._added(up @ down / self.rank)

    def right_inverse(self, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return the initial factors."""
        rows, columns = grid(len(bias))
        down = torch.empty(self.rank, columns)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
        return down, torch.zeros(rows, self.rank)


class VeraBias(_Delta):
    """VeRA's update (arXiv 2310.11454), flattened: frozen random factors, with trained scales for ranks and rows.

    Args:
        bias: The pretrained bias, shape ``(d,)``.
        rank: Rank of the frozen factors.
    """

    down: Tensor
    up: Tensor

    def __init__(self, bias: Tensor, rank: int) -> None:
        super().__init__(bias)
        rows, columns = grid(len(bias))
        # Buffers are saved in checkpoints: the trained scales mean nothing without the factors.
        for name, shape in (("down", (rank, columns)), ("up", (rows, rank))):
            self.register_buffer(name, nn.init.kaiming_uniform_(torch.empty(shape)))

    def forward(self, of_ranks: Tensor, of_rows: Tensor) -> Tensor:
        """Return the bias from the scales, shapes ``(rank,)`` and ``(rows,)``."""
        return self._added(of_rows[:, None] * (self.up @ (of_ranks[:, None] * self.down)))

    def right_inverse(self, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return the initial scales, VeRA's own: 0.1 and zero."""
        return torch.full((len(self.down),), 0.1), torch.zeros(len(self.up))


class ScalarBias(_Delta):
    """The pretrained bias plus one number, the same for all its values.

    Args:
        bias: The pretrained bias, shape ``(d,)``.
    """

    def forward(self, scalar: Tensor) -> Tensor:
        """Return the bias from the number, shape ``(1,)``."""
        return self.pretrained + scalar

    def right_inverse(self, bias: Tensor) -> Tensor:
        """Return the initial number: zero."""
        return torch.zeros(1)


def reparametrize_biases(
    module: nn.Module,
    terms: Iterable[str],
    delta: Callable[[Tensor], nn.Module],
    architecture: Architecture | None = None,
) -> list[nn.Parameter]:
    """Replace bias vectors by functions of fewer trainable numbers; the model's output does not change.

    Args:
        module: A model, or any module that contains one; changed in place.
        terms: Names of terms, all of whose biases exist.
        delta: Makes the parametrization of a bias, such as :class:`ScalarBias`.
        architecture: Where the terms are; by default looked up by the model's type.

    Returns:
        The new trainable parameters.

    Raises:
        TermError: If a term or one of its biases does not exist.
    """
    created: list[nn.Parameter] = []
    for term, owners in owners_of(terms, module, architecture).items():
        for index, owner in owners.items():
            bias = getattr(owner, "bias", None)
            if not isinstance(bias, nn.Parameter):
                raise TermError(f"term {term!r} of layer {index} has no bias of its own to re-parametrise.")
            parametrize_tensor(owner, "bias", delta(bias))
            created.extend(owner.get_submodule("parametrizations.bias").parameters(recurse=False))
    return created
