"""The rows of a batch, each with the values of its adapter."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from beft_lightning.errors import BeftError


@dataclass(frozen=True, eq=False)
class Rows:
    """What the layers of the base add to each row of a batch, and how its heads compute.

    Args:
        count: Number of rows that name an adapter.
        copies: Number of rows of the model for each of them: of beams, or of returned sequences.
        vectors: Layer -> what is added to its output, shape ``(count, outputs)``.
        weights: Linear layer of the head -> its weights, shape ``(count, most outputs, inputs)``.
        biases: Linear layer of the head -> its biases, shape ``(count, most outputs)``.
    """

    count: int
    copies: int
    vectors: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    biases: Mapping[str, Tensor]

    def check(self, batch: int) -> None:
        """Check the number of rows that the model is called with.

        Raises:
            BeftError: If it is another one than the adapters named.
        """
        if batch != self.count * self.copies:
            raise BeftError(
                f"the batch has {batch} rows, and {self.count} adapters are named"
                f"{f' for {self.copies} rows each' if self.copies > 1 else ''}: name one for each row."
            )

    def add(self, layer: str, output: Tensor) -> Tensor:
        """Return the output of a layer with each row's vector added, in the output's precision."""
        vectors = self._spread(layer, self.vectors[layer], output)
        return (output + vectors).to(output.dtype)

    def head(self, layer: str, values: Tensor) -> Tensor:
        """Return what a linear layer of the head makes of its input, each row with its own weights.

        Args:
            layer: The layer.
            values: Its input, shape ``(rows, ..., inputs)``.

        Returns:
            Shape ``(rows, ..., most outputs)``; zeros behind the outputs of an adapter that has fewer.
        """
        copies = self._copies(layer, values)
        weights = self.weights[layer].repeat_interleave(copies, dim=0)
        flat = values.reshape(len(values), -1, values.shape[-1])
        outputs = torch.bmm(flat, weights.to(flat.dtype).transpose(1, 2)).reshape(*values.shape[:-1], -1)
        return outputs + self._spread(layer, self.biases[layer], outputs)

    def _spread(self, layer: str, vectors: Tensor, output: Tensor) -> Tensor:
        """Return a vector for each row of an output, with dimensions between to add it at every position."""
        vectors = vectors.repeat_interleave(self._copies(layer, output), dim=0)
        return vectors.view(len(output), *[1] * (output.dim() - 2), -1)

    def _copies(self, layer: str, values: Tensor) -> int:
        """Return how many rows of a layer belong to one of the batch: more than one if it sees positions as rows."""
        copies, rest = divmod(len(values), self.count)
        if rest or not copies:
            raise BeftError(
                f"layer {layer!r} sees {len(values)} rows of a batch of {self.count}, so it does not tell which "
                "adapter each belongs to: serve adapters of this layer one at a time."
            )
        return copies


def head_layers(model: nn.Module, body: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers of a model's head by their paths: those outside its pretrained body.

    Args:
        model: The model.
        body: Its pretrained part; the output embeddings of a language model belong to it.
    """
    inside = {id(child) for child in body.modules()}
    if (output := getattr(model, "get_output_embeddings", lambda: None)()) is not None:
        inside.add(id(output))
    return {
        path: child for path, child in model.named_modules() if isinstance(child, nn.Linear) and id(child) not in inside
    }
