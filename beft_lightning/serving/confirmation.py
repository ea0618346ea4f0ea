"""Whether a layer's bias can differ from row to row: tried on a sample, since not every layer sees rows as rows."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from beft_lightning.serving.adapter import Adapter
from beft_lightning.serving.twin import merged

_ROWS, _TOKENS = 3, 6
#: Largest share of the effect of the vectors by which rows may differ from the same row alone.
_TOLERANCE = 0.05


def sample_rows(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return a batch of made-up rows of tokens, one of them padded on the right."""
    size = min(model.config.get_text_config().vocab_size, 1000)
    ids = torch.randint(size // 2, size, (_ROWS, _TOKENS), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, -2:] = 0
    padding = model.config.get_text_config().pad_token_id
    ids[1, -2:] = 0 if padding is None else padding
    return {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}


def sample_adapters(model: PreTrainedModel, widths: Mapping[str, int]) -> list[Adapter]:
    """Return an adapter of random values for each row of the sample.

    Args:
        model: The base.
        widths: Layer -> number of its outputs.
    """
    generator = torch.Generator().manual_seed(1)
    return [
        Adapter({layer: torch.randn(width, generator=generator) for layer, width in widths.items()})
        for _ in range(_ROWS)
    ]


@torch.inference_mode()
def rows_differ(
    model: PreTrainedModel, batch: Mapping[str, Tensor], adapters: Sequence[Adapter], together: Tensor
) -> float:
    """Return by how much rows with different adapters differ from the same rows with each adapter in all of them.

    Args:
        model: The base.
        batch: The rows.
        adapters: One for each of them.
        together: What the model has made of them together.

    Returns:
        The largest difference, as a share of the adapters' largest effect.
    """
    plain = model(**batch).logits.float()
    alone = torch.stack([merged(model, a)(**batch).logits.float()[row] for row, a in enumerate(adapters)])
    effect = (alone - plain).abs().max()
    # Some biases have no effect, as most keys'; rounding has one of its own.
    noise = 1e-4 * plain.abs().max().clamp_min(1e-6)
    return float((together.float() - alone).abs().max() / torch.maximum(effect, noise))


def is_confirmed(difference: float) -> bool:
    """Return whether a difference of :func:`rows_differ` is one of rounding only."""
    return difference < _TOLERANCE
