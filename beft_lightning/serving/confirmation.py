"""Whether a layer's bias can differ from row to row: tried on a sample, since not every layer sees rows as rows."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from beft_lightning.serving.adapter import Adapter
from beft_lightning.serving.twin import merged

_ROWS, _TOKENS = 3, 6
#: Largest share of the effect of the vectors by which a row may differ from the same one without other adapters.
_MOST_MIXED = 0.05
#: Largest share of the effect by which it may differ from a bias of the layer. Half precision rounds the two
#: differently, over thirty layers by 14 to 33 % of the effect; a vector that goes elsewhere differs by all of it.
_MOST_ROUNDED, _MOST_ROUNDED_HALF = 0.05, 0.5

#: Computes rows, each with an adapter of its own.
Compute = Callable[[Mapping[str, Tensor], Sequence[Adapter]], Tensor]


@torch.inference_mode()
def rows_can_differ(model: PreTrainedModel, widths: Mapping[str, int], compute: Compute) -> bool:
    """Return whether rows that share a batch get what their own adapters alone give them.

    Args:
        model: The base.
        widths: Layer -> number of its outputs.
        compute: Returns the model's logits of a batch, each row with its own adapter.
    """
    batch, adapters = _sample_rows(model), _sample_adapters(widths)
    plain = model(**batch).logits.float()
    together = compute(batch, adapters).float()
    apart = torch.stack([compute(batch, [a] * _ROWS)[row].float() for row, a in enumerate(adapters)])
    alone = torch.stack([merged(model, a)(**batch).logits[row].float() for row, a in enumerate(adapters)])
    precision = torch.get_autocast_dtype(model.device.type) if torch.is_autocast_enabled(model.device.type) else None
    # Some biases have no effect, as most keys'; rounding has one of its own.
    noise = max(1e-4, 16 * torch.finfo(precision).eps if precision else 0) * plain.abs().max().clamp_min(1e-6)
    effect = torch.maximum((alone - plain).abs().max(), noise)
    mixed, rounded = ((one - other).abs().max() / effect for one, other in ((together, apart), (apart, alone)))
    return bool(mixed < _MOST_MIXED and rounded < (_MOST_ROUNDED_HALF if precision else _MOST_ROUNDED))


def _sample_rows(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return a batch of made-up rows of tokens, one of them padded on the right."""
    size = min(model.config.get_text_config().vocab_size, 1000)
    ids = torch.randint(size // 2, size, (_ROWS, _TOKENS), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, -2:] = 0
    padding = model.config.get_text_config().pad_token_id
    ids[1, -2:] = 0 if padding is None else padding
    return {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}


def _sample_adapters(widths: Mapping[str, int]) -> list[Adapter]:
    """Return an adapter of random values for each row of the sample."""
    generator = torch.Generator().manual_seed(1)
    return [
        Adapter({layer: torch.randn(width, generator=generator) for layer, width in widths.items()})
        for _ in range(_ROWS)
    ]
