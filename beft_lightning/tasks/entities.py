"""Entities in sequences of tags, and how well they are found."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torchmetrics import Metric

#: An entity: its type, its first word, and the word behind its last one.
Entity = tuple[str, int, int]


def entities(tags: Sequence[str]) -> set[Entity]:
    """Return the entities that tags of IOB2 or IOBES describe, as CoNLL's evaluation reads them.

    An ``I-`` without an entity of its type before it begins one (Tjong Kim Sang, Buchholz 2000).

    >>> sorted(entities(["B-PER", "I-PER", "O", "B-LOC", "I-PER"]))
    [('LOC', 3, 4), ('PER', 0, 2), ('PER', 4, 5)]
    """
    found: set[Entity] = set()
    start, name = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        if name and not (prefix in ("I", "E") and kind == name):
            found.add((name, start, place))
            name = ""
        if kind and not name:
            start, name = place, kind
        if name and prefix in ("E", "S"):
            found.add((name, start, place + 1))
            name = ""
    return found


class EntityScore(Metric):
    """Precision, recall or F1 of the entities found, over all types; 0 where it is not defined.

    Args:
        tags: Names of the tags in the order of their ids.
        score: Which of the three.
    """

    right: Tensor
    predicted: Tensor
    known: Tensor

    def __init__(self, tags: Sequence[str], score: Literal["f1", "precision", "recall"]) -> None:
        super().__init__()
        self.tags = tuple(tags)
        self.score = score
        for name in ("right", "predicted", "known"):
            self.add_state(name, default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]) -> None:
        """Add sentences.

        Args:
            predictions: Predicted tag ids of each sentence.
            labels: Right tag ids of each sentence.
        """
        for predicted, known in zip(predictions, labels, strict=True):
            found, there = (entities([self.tags[tag] for tag in ids]) for ids in (predicted, known))
            self.right += len(found & there)
            self.predicted += len(found)
            self.known += len(there)

    def compute(self) -> Tensor:
        """Return the score, a scalar."""
        total = {
            "f1": (self.predicted + self.known) / 2,
            "precision": self.predicted.float(),
            "recall": self.known.float(),
        }[self.score]
        return self.right / total.clamp(min=0.5)
