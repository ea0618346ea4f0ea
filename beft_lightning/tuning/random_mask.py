"""Train a random part of the weights: the control that every choice of parameters has to beat.

Only the chosen entries are parameters. The published code keeps gradients and optimizer state of every weight and
multiplies them by a mask.
"""

import random
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from beft_lightning.bias import all_biases
from beft_lightning.bias.lookup import pretrained_model
from beft_lightning.bias.parametrized import parametrize_tensor
from beft_lightning.errors import TermError
from beft_lightning.tuning.method import TuningMethod


@dataclass(frozen=True)
class RandomMaskTuning(TuningMethod):
    """Random entries of all matrices of the pretrained model.

    Args:
        budget: Number of entries; by default the number of values in the model's biases.
        seed: Seed of the draw.
    """

    name: ClassVar[str] = "random_mask"
    changes_matrices: ClassVar[bool] = True
    budget: int | None = None
    seed: int = 0

    def apply(self, model: nn.Module) -> None:
        """Make the drawn entries trainable."""
        parameters = dict(model.named_parameters())
        budget = self.budget
        if budget is None:
            budget = sum(parameters[name].numel() for name in all_biases(model))
        model.requires_grad_(False)
        train_random_entries(model, budget, self.seed)


@dataclass(frozen=True)
class RandomRowTuning(TuningMethod):
    """One random row or column of each linear layer, at about the size of its bias.

    Args:
        seed: Seed of the draw.
    """

    name: ClassVar[str] = "random_rows"
    changes_matrices: ClassVar[bool] = True
    seed: int = 0

    def apply(self, model: nn.Module) -> None:
        """Make the drawn rows and columns trainable."""
        model.requires_grad_(False)
        train_random_rows(model, self.seed)


class Scattered(nn.Module):
    """Parametrization of a weight of which only some entries are trained.

    Args:
        weight: The pretrained weight, of any shape.
        index: Positions of the trained entries in the flattened weight, shape ``(n,)``, distinct.
    """

    index: Tensor

    def __init__(self, weight: Tensor, index: Tensor) -> None:
        super().__init__()
        self.pretrained = nn.Parameter(weight.detach(), requires_grad=False)
        # A buffer is saved in checkpoints: the trained values mean nothing without their positions.
        self.register_buffer("index", index)

    def forward(self, values: Tensor) -> Tensor:
        """Return the weight with ``values``, shape ``(n,)``, at their positions."""
        flat = self.pretrained.flatten().index_copy(0, self.index, values.to(self.pretrained.dtype))
        return flat.view(self.pretrained.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the pretrained values of the trained entries, shape ``(n,)``."""
        return weight.flatten()[self.index]


def train_random_entries(module: nn.Module, budget: int, seed: int = 0) -> list[nn.Parameter]:
    """Make ``budget`` entries trainable, drawn uniformly from all matrices of the pretrained model.

    Embeddings that the output layer shares are left out.

    Args:
        module: A model, or any module that contains one.
        budget: Number of entries.
        seed: Seed of the draw.

    Returns:
        The new trainable parameters, one for each matrix that was hit.

    Raises:
        TermError: If the budget is not positive, or larger than there are entries.
    """
    matrices = _matrices(module)
    sizes = [owner.get_parameter(name).numel() for owner, name in matrices]
    if not 0 < budget <= sum(sizes):
        raise TermError(f"a random mask of {budget:,} entries: choose from 1 to {sum(sizes):,}, the model's weights.")
    # On the CPU even where the model is only planned, on the meta device: places are values.
    places = torch.tensor(sorted(random.Random(seed).sample(range(sum(sizes)), budget)), device="cpu")
    created = []
    for (owner, name), size in zip(matrices, sizes, strict=True):
        inside = places[places < size]
        places = places[len(inside) :] - size
        if len(inside):
            created.append(_scatter(owner, name, inside))
    return created


def train_random_rows(module: nn.Module, seed: int = 0) -> list[nn.Parameter]:
    """Make one random row or column of each linear layer's weight trainable, at about the size of its bias.

    As in the published code: with probability 1/2, or if there are more columns than rows, a column; else as many
    whole rows as a column has entries.

    Args:
        module: A model, or any module that contains one.
        seed: Seed of the draw.

    Returns:
        The new trainable parameters, one for each linear layer of the pretrained model.
    """
    draw = random.Random(seed)
    created = []
    for owner, name in _matrices(module):
        if not isinstance(owner, nn.Linear | Conv1D):
            continue
        places = torch.arange(owner.weight.numel(), device="cpu").view(owner.weight.shape)
        if isinstance(owner, Conv1D):  # GPT-2's layers hold their weights transposed
            places = places.T
        rows, columns = places.shape
        if draw.random() < 0.5 or rows < columns:
            chosen = places[:, draw.randrange(columns)]
        else:
            chosen = places[sorted(draw.sample(range(rows), rows // columns))].flatten()
        created.append(_scatter(owner, name, chosen))
    return created


def _matrices(module: nn.Module) -> list[tuple[nn.Module, str]]:
    """Return owner and name of every matrix of the pretrained model, output embeddings apart."""
    model = pretrained_model(module)
    if low := [name for name, p in model.named_parameters() if not p.is_floating_point()]:
        raise TermError(f"a part of {low[0]!r} cannot be trained, as the weights are quantized: use another dtype.")
    output = model.get_output_embeddings()
    shared = {id(parameter) for parameter in output.parameters()} if output is not None else set()
    return [
        (owner, name)
        for owner in model.base_model.modules()
        for name, parameter in owner.named_parameters(recurse=False)
        if parameter.dim() == 2 and id(parameter) not in shared
    ]


def _scatter(owner: nn.Module, name: str, index: Tensor) -> nn.Parameter:
    """Make the entries at ``index`` of a weight trainable, and return them as one parameter in fp32."""
    weight = owner.get_parameter(name)
    index = index.clone(memory_format=torch.contiguous_format)  # a view would be saved with all that it is a view of
    # Unsafe skips a check that the trained values are as precise as the weight: they are fp32 over any weight.
    parametrize_tensor(owner, name, Scattered(weight, index), unsafe=True)
    original = owner.get_parameter(f"parametrizations.{name}.original")
    original.data = original.data.float()
    original.requires_grad_(True)
    return original
