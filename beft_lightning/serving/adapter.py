"""An adapter as a bank holds it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from beft_lightning.data.task import TaskRecord


@dataclass(frozen=True, eq=False)
class Adapter:
    """What one fit has changed in its base.

    Args:
        deltas: Path of a layer -> what is added to its output, the trained bias less the base's, shape ``(outputs,)``.
        head: Names of the head's parameters -> their values.
        task: The task of the fit, if it is known: how inputs are encoded, and what the outputs are called.
    """

    deltas: Mapping[str, Tensor]
    head: Mapping[str, Tensor] = field(default_factory=dict)
    task: TaskRecord | None = None
