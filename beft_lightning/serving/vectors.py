"""The vectors of many adapters, stacked."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

#: The slot of no adapter: zeros.
BASE = 0
_FIRST_CAPACITY = 8


class VectorStack:
    """One tensor of shape ``(slots, width)`` in fp32 for each layer, in which every adapter has a slot.

    Args:
        device: Where the tensors are.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._tensors: dict[str, Tensor] = {}
        self._capacity = _FIRST_CAPACITY
        self._free = list(range(_FIRST_CAPACITY - 1, BASE, -1))

    @property
    def bytes(self) -> int:
        """Memory of all tensors."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def put(self, vectors: Mapping[str, Tensor]) -> int:
        """Store the vectors of an adapter; layers that it leaves alone get zeros.

        Returns:
            Its slot.
        """
        if not self._free:
            self._grow()
        slot = self._free.pop()
        for layer, vector in vectors.items():
            if layer not in self._tensors:
                self._tensors[layer] = torch.zeros(self._capacity, len(vector), device=self._device)
            self._tensors[layer][slot] = vector.to(self._tensors[layer])
        return slot

    def drop(self, slot: int) -> None:
        """Empty a slot, for another adapter to take."""
        for tensor in self._tensors.values():
            tensor[slot] = 0
        self._free.append(slot)

    def rows(self, slots: Sequence[int]) -> dict[str, Tensor]:
        """Return the vectors of some slots: layer -> a copy of shape ``(len(slots), width)``."""
        index = torch.tensor(slots, device=self._device)
        return {layer: tensor[index] for layer, tensor in self._tensors.items()}

    def _grow(self) -> None:
        """Double the number of slots."""
        more = self._capacity
        self._tensors = {layer: torch.cat([old, torch.zeros_like(old)]) for layer, old in self._tensors.items()}
        self._free = list(range(self._capacity + more - 1, self._capacity - 1, -1))
        self._capacity += more
