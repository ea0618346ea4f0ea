"""The interface of preprocessors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

#: Fills up the ``labels`` of examples with no right option, or fewer than others of the batch.
NO_LABEL = -1


@dataclass(frozen=True)
class EncodingOptions:
    """Options of the encoding that a user can choose.

    Args:
        max_length: Longest input, in tokens.
        padding: ``longest`` pads each batch to its own longest example, ``max_length`` pads all bare texts alike.
    """

    max_length: int
    padding: Literal["longest", "max_length"] = "longest"


class Preprocessor(Protocol):
    """Turns a split's examples into features (token ids of each), and features into batches."""

    def encode(self, examples: Sequence[Any]) -> list[dict[str, Any]]:
        """Return the features of the examples, in their order."""

    def rows(self, features: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows that a fit learns from and evaluates, which may join examples."""

    def length(self, features: dict[str, Any]) -> int:
        """Return the number of tokens that an example costs."""

    def positions(self, features: dict[str, Any]) -> int:
        """Return the number of positions that an example needs."""

    def collate_training(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch to learn from; its ``labels`` are the target of each example, shape ``(batch,)``."""

    def collate_evaluation(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch to evaluate: inputs, ``labels``, ``id`` and whatever else the metrics compare with."""
