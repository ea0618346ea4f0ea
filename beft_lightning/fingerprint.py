"""The identity of frozen weights, which a checkpoint keeps in their place."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from beft_lightning.checksums import tensor_checksum
from beft_lightning.errors import CheckpointError
from beft_lightning.parameters import full_tensor

#: Values of each tensor that are kept beside its checksum, to compare weights in different precisions.
_SAMPLES = 4
#: From the lowest up. The largest relative step of the first.
_PRECISIONS = (torch.bfloat16, torch.float16, torch.float32)
_BF16_STEP = 2.0**-7
#: By how much a code's mean may differ between two quantizations of the same weights: the kernels of a GPU and of
#: processors round a few values differently.
_QUANTIZED_TOLERANCE = 1e-4


def fingerprint(module: nn.Module, known: Mapping[int, list[Any]] | None = None) -> dict[str, list[Any]]:
    """Identify a module's parameters.

    Where processes hold parts of a tensor, all of them must call this together; one tensor at a time is gathered.

    Args:
        module: The module.
        known: The ``id`` of a parameter -> what identifies it, for those that were identified before and are unchanged.

    Returns:
        For each parameter its precision, four of its values and the checksum of all of its bytes; if it is quantized,
        also the mean of its codes. Plain types only.
    """
    known = known or {}
    return {name: known.get(id(parameter)) or identity(parameter) for name, parameter in module.named_parameters()}


def is_identity(value: Any) -> bool:
    """Return whether a value of a checkpoint has the form of :func:`fingerprint`'s, of this or the first version."""
    kinds: tuple[Any, ...] = (str, *[int | float] * _SAMPLES, str, int | float)
    return isinstance(value, list) and len(value) > _SAMPLES and all(map(isinstance, value, kinds))


def check_fingerprint(saved: Mapping[str, list[Any]], here: Mapping[str, list[Any]], trained: set[str]) -> None:
    """Check that a checkpoint was trained over the frozen weights of this run.

    Weights in the same precision must be equal in every bit. If the model is in another precision, and in checkpoints
    of the first version, four values of each tensor are compared, rounded alike: also of those that are fp32 in both,
    as biases are, since they were rounded with the others. What differs elsewhere is not seen then.

    Args:
        saved: The :func:`fingerprint` of the frozen weights when the checkpoint was written.
        here: The fingerprint of the module that the checkpoint has been loaded into.
        trained: Names of the parameters that the checkpoint holds.

    Raises:
        CheckpointError: If parameters are missing on either side, values differ by more than their precision, or
            weights are quantized on one side alone, where they cannot be compared.
    """
    if unknown := [name for name in here if name not in saved and name not in trained]:
        raise CheckpointError(
            f"the checkpoint belongs to another model: it says nothing about {unknown[0]!r}, which this model has. "
            "Give the pretrained model and the head it was trained with."
        )
    lower = _lower_precision(saved, here)
    for name, expected in saved.items():
        if name not in here:
            raise CheckpointError(
                f"the checkpoint belongs to another model: that one has {name!r}, which this model lacks. "
                "Give the pretrained model it was trained on."
            )
        if expected[0] != here[name][0] and not all(map(_is_float, (expected, here[name]))):
            raise CheckpointError(
                f"the checkpoint was written over {name!r} in {_precision(expected)}, and this model has it in "
                f"{_precision(here[name])}, which cannot be compared: load the model with the fit's precision, "
                f"dtype={_precision(expected)!r}."
            )
        if not same_identity(expected, here[name], lower):
            raise CheckpointError(
                f"the checkpoint belongs to another model of the same shape: its frozen {name!r} differs from this "
                "model's. Give the pretrained model it was trained on (a randomly initialized one needs the same seed)."
            )


def identity(tensor: Tensor) -> list[Any]:
    """Identify a tensor; see :func:`fingerprint`."""
    full = full_tensor(tensor)
    values = full.flatten()
    # Evenly spread, and away from the first row of an embedding, which often is the zeros of the padding token.
    places = [(len(values) - 1) * quarter // _SAMPLES for quarter in range(1, _SAMPLES + 1)]
    found = [str(full.dtype), *values[places].float().cpu().tolist(), tensor_checksum(full)]
    if not full.is_floating_point():
        found.append(values.sum().item() / len(values))
    return found


def _precision(identity: list[Any]) -> str:
    """Return the name that ``dtype`` has for a tensor's precision; bytes hold pairs of codes of nf4."""
    name = str(identity[0]).removeprefix("torch.")
    return "nf4" if name == "uint8" else name


def _is_float(identity: list[Any]) -> bool:
    return "float" in _precision(identity)


def same_identity(saved: list[Any], here: list[Any], lower: torch.dtype | None = None) -> bool:
    """Return whether two of :func:`identity` are of the same tensor.

    Args:
        saved: The one.
        here: The other.
        lower: The precision that one of the two was rounded to, if they may differ in precision. Then four values are
            compared, both rounded to it.
    """
    (dtype, *samples), (dtype_here, *samples_here) = (found[: 1 + _SAMPLES] for found in (saved, here))
    (exact, *mean), (exact_here, *mean_here) = ((found[1 + _SAMPLES :] or [None]) for found in (saved, here))
    if lower is None and exact is not None:
        if exact == exact_here:
            return True
        return bool(mean and mean_here) and abs(mean[0] - mean_here[0]) <= _QUANTIZED_TOLERANCE
    one, other = (torch.tensor(values, dtype=lower).double() for values in (samples, samples_here))
    twice = {dtype, dtype_here} == {"torch.float16", "torch.bfloat16"}  # Both were rounded before, in their own way.
    return torch.allclose(one, other, rtol=_BF16_STEP if twice else 0.0, atol=0.0)


def _lower_precision(saved: Mapping[str, list[Any]], here: Mapping[str, list[Any]]) -> torch.dtype | None:
    """Return the lowest precision among weights of which one side has another; None if there are none."""
    pairs = ((found[0], here[name][0]) for name, found in saved.items() if name in here)
    found = {dtype for pair in pairs if pair[0] != pair[1] for dtype in pair}
    return next((dtype for dtype in _PRECISIONS if str(dtype) in found), None)
