"""The single examples of a batch."""

from collections.abc import Iterator
from typing import Any

from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from beft_lightning.errors import ScoringError


def examples(batch: Any) -> Iterator[Any]:
    """Each example of ``batch`` as a batch of its own, of the same structure.

    Args:
        batch: Any nesting of lists, tuples, mappings and dataclasses. Its tensors have one first dimension, the
            examples; scalars belong to all of them.

    Raises:
        ScoringError: If the tensors do not agree on the number of examples, or something else than tensors has one.
    """
    sizes: set[int] = set()
    apply_to_collection(batch, Tensor, lambda tensor: sizes.update(tensor.shape[:1]))
    apply_to_collection(batch, str, lambda text: sizes.add(0))
    if len(sizes) != 1:
        raise ScoringError(
            "approach 'sample_fisher' needs batches of tensors whose first dimension is the examples; this one has "
            f"{'texts or ' if 0 in sizes else ''}tensors of first dimensions {sorted(sizes - {0})}. Use approach "
            "'fisher' with clip_norm null and a data batch size of 1: then every batch is one example."
        )
    for index in range(sizes.pop()):
        yield apply_to_collection(batch, Tensor, lambda tensor, i=index: tensor[i : i + 1] if tensor.dim() else tensor)
