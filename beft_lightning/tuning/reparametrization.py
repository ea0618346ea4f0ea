"""A bias as its pretrained value plus a function of fewer numbers: low rank, VeRA, a single scalar.

The published experiments (BEFT, LoRA-type re-parameterised biases) write the 768 values of a bias as a matrix of
32 x 24. Here any width will do, and all kinds start from the pretrained bias itself, where the published VeRA and
scalar kinds start beside it.
"""

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from beft_lightning.bias.architectures import Architecture
from beft_lightning.bias.parametrized import parametrize_tensor
from beft_lightning.bias.terms import bias_owners
from beft_lightning.errors import TermError


def grid(width: int) -> tuple[int, int]:
    """Rows and columns of the most nearly square matrix that holds ``width`` values, as exactly as it can.

    >>> grid(768), grid(384), grid(13)
    ((32, 24), (24, 16), (4, 4))
    """
    columns = next(n for n in range(math.isqrt(width), 0, -1) if width % n == 0)
    if 2 * columns < math.isqrt(width):  # a prime width would leave a single row, which has no rank to lower
        rows = math.ceil(math.sqrt(width))
        return rows, math.ceil(width / rows)
    return width // columns, columns


class _Delta(nn.Module):
    """The frozen pretrained bias, to which a subclass adds."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.pretrained = nn.Parameter(bias.detach().clone(), requires_grad=False)

    def _added(self, values: Tensor) -> Tensor:
        return self.pretrained + values.flatten()[: len(self.pretrained)]


class LowRankBias(_Delta):
    """LoRA's update, flattened: the bias plus ``B A / rank`` with ``A`` random and ``B`` zero at the start.

    Args:
        bias: The pretrained bias, shape ``(d,)``.
        rank: Rank of the update, seen as a matrix of about ``sqrt(d)`` rows and columns.
    """

    def __init__(self, bias: Tensor, rank: int) -> None:
        super().__init__(bias)
        self.rank = rank

    def forward(self, down: Tensor, up: Tensor) -> Tensor:
        """The bias, from the factors."""
        return self._added(up @ down / self.rank)

    def right_inverse(self, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The factors at the start."""
        rows, columns = grid(len(bias))
        down = torch.empty(self.rank, columns)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
        return down, torch.zeros(rows, self.rank)


class VeraBias(_Delta):
    """VeRA's update, flattened: frozen random factors, of which two vectors scale the ranks and the rows.

    Args:
        bias: The pretrained bias, shape ``(d,)``.
        rank: Rank of the frozen factors.
    """

    down: Tensor
    up: Tensor

    def __init__(self, bias: Tensor, rank: int) -> None:
        super().__init__(bias)
        rows, columns = grid(len(bias))
        # Kept in checkpoints: what was trained means nothing without them.
        for name, shape in (("down", (rank, columns)), ("up", (rows, rank))):
            self.register_buffer(name, nn.init.kaiming_uniform_(torch.empty(shape)))

    def forward(self, of_ranks: Tensor, of_rows: Tensor) -> Tensor:
        """The bias, from the scaling vectors."""
        return self._added(of_rows[:, None] * (self.up @ (of_ranks[:, None] * self.down)))

    def right_inverse(self, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors at the start: VeRA's own, 0.1 and zero."""
        return torch.full((len(self.down),), 0.1), torch.zeros(len(self.up))


class ScalarBias(_Delta):
    """The pretrained bias plus one number, the same for all its values.

    Args:
        bias: The pretrained bias, shape ``(d,)``.
        rank: Not used; all kinds take it.
    """

    def __init__(self, bias: Tensor, rank: int) -> None:
        super().__init__(bias)

    def forward(self, scalar: Tensor) -> Tensor:
        """The bias, from the number."""
        return self.pretrained + scalar

    def right_inverse(self, bias: Tensor) -> Tensor:
        """The number at the start: zero."""
        return torch.zeros(1)


KINDS: Mapping[str, Callable[[Tensor, int], nn.Module]] = {
    "low_rank": LowRankBias,
    "vera": VeraBias,
    "scalar": ScalarBias,
}


def reparametrize_biases(
    module: nn.Module,
    terms: Iterable[str],
    kind: str,
    rank: int = 8,
    architecture: Architecture | None = None,
) -> list[nn.Parameter]:
    """Replace bias vectors by functions of fewer trainable numbers; the model's output does not change.

    Args:
        module: A model, or any module that contains one.
        terms: Names of terms, all of whose biases exist.
        kind: A key of :data:`KINDS`.
        rank: Rank of the update, for the kinds that have one.
        architecture: Where the terms are; by default looked up by the model's type.

    Returns:
        The new trainable parameters.

    Raises:
        TermError: If the kind is unknown, the rank is not positive, or a term or one of its biases does not exist.
    """
    if kind not in KINDS:
        raise TermError(f"no kind {kind!r} of re-parametrised bias; choose one of: {', '.join(KINDS)}.")
    if rank < 1:
        raise TermError(f"the rank of a re-parametrised bias must be at least 1, not {rank}.")
    owners = bias_owners(module, architecture)
    created: list[nn.Parameter] = []
    for term in terms:
        if term not in owners:
            raise TermError(f"no term {term!r} in this model; it can have: {', '.join(owners)}.")
        for index, owner in owners[term].items():
            bias = getattr(owner, "bias", None)
            if not isinstance(bias, nn.Parameter):
                raise TermError(f"term {term!r} of layer {index} has no bias of its own to re-parametrise.")
            parametrize_tensor(owner, "bias", KINDS[kind](bias, rank))
            created.extend(owner.get_submodule("parametrizations.bias").parameters(recurse=False))
    return created
