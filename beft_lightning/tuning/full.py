"""Train all parameters."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from beft_lightning.errors import BeftError
from beft_lightning.tuning.method import TuningMethod


@dataclass(frozen=True)
class FullTuning(TuningMethod):
    """Every parameter of the model. The weights must be float32."""

    name: ClassVar[str] = "full"
    changes_matrices: ClassVar[bool] = True
    #: The published rate of full fine-tuning.
    learning_rate: ClassVar[float | None] = 1e-5

    def check(self, model: nn.Module) -> None:
        """Check that the weights are float32.

        Raises:
            BeftError: If some have another type.
        """
        others = {parameter.dtype for parameter in model.parameters()} - {torch.float32}
        if others:
            raise BeftError(f"tune 'full' trains the weights, which then must be float32, not {others.pop()}.")

    def apply(self, model: nn.Module) -> None:
        """Make every parameter trainable."""
        model.requires_grad_(True)
