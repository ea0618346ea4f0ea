"""The state of a model that an entrant of a race changes."""

from collections.abc import Iterable

import torch
from torch import nn

from beft_lightning.scoring.plain_state import Snapshot


class ModelState:
    """Values of parameters, and the module's plain state (buffers, counters, metrics), at the moment of its making.

    Args:
        module: The module.
        parameters: Those of its parameters that may change.
    """

    def __init__(self, module: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
        self._values = {parameter: parameter.detach().clone() for parameter in parameters}
        self._plain = Snapshot()
        self._plain.add(module)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters whose values it has."""
        return [*self._values]

    @torch.no_grad()
    def restore(self) -> None:
        """Put the state into the model."""
        self._plain.restore()
        for parameter, value in self._values.items():
            parameter.copy_(value)
