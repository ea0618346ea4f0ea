"""Inert terms: biases that cannot change what the model computes."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn


@torch.no_grad()
def is_inert(biases: Iterable[nn.Parameter], output: Callable[[], Tensor], tolerance: float = 1e-4) -> bool:
    """Probe whether shifting ``biases`` changes a model's output.

    Softmax ignores a constant added to all keys' logits, so a key bias does nothing unless positions multiply the
    keys (RoPE) or keys are normalised; there, fp32 rounding leaves a relative change of about 1e-6, while a live
    term's change is of the order of 1.

    Args:
        biases: The bias vectors of one term. They are shifted by unit Gaussian noise and restored exactly.
        output: Runs the model in fp32 without dropout and returns its output for some fixed real input.
        tolerance: Largest change, relative to the largest output, that still counts as none.
    """
    biases = list(biases)
    reference = output().float()
    originals = [bias.detach().clone() for bias in biases]
    generator = torch.Generator().manual_seed(0)
    try:
        for bias in biases:
            bias.add_(torch.randn(bias.shape, generator=generator).to(bias))
        shifted = output().float()
    finally:
        for bias, original in zip(biases, originals, strict=True):
            bias.copy_(original)
    return bool((shifted - reference).abs().max() <= tolerance * reference.abs().max())


def inert_by_gradient(gradients: Mapping[str, Iterable[Tensor]], head: Iterable[Tensor] = ()) -> tuple[str, ...]:
    """Return the terms whose loss gradient is nothing but rounding.

    A second probe, for where only a loss is at hand: one number moves too little to tell a small effect from none.
    In fp32, an inert key bias has a gradient of about 5e-7 of the query's; a live one (RoPE) about half of it.

    Args:
        gradients: Term -> gradients of its bias vectors, all of the same loss in fp32 without dropout.
        head: Gradients of the task head, which is always live: they tell a lone inert term from a live one.

    Returns:
        Terms whose gradient is at most 1e-5 of the largest term's or 1e-8 of the head's. The head is nearer to the
        loss, so that live terms may stay far below it.
    """
    norms = {term: torch.cat([part.flatten() for part in parts]).norm().item() for term, parts in gradients.items()}
    of_head = max((gradient.norm().item() for gradient in head), default=0.0)
    rounding = max(1e-5 * max(norms.values()), 1e-8 * of_head)
    return tuple(term for term, norm in norms.items() if norm <= rounding)
