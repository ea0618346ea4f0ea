"""Sounds as arrays of samples: from files, bytes and arrays."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beft_lightning.data.media.extras import check_extra
from beft_lightning.errors import DataError

#: Seconds below which speech models have no frame to look at.
SHORTEST = 0.05


def read_sound(value: Any, rate: int, where: str) -> NDArray[np.float32]:
    """Return a sound as samples of one channel.

    Args:
        value: A path, the bytes of a file, a mapping with ``bytes`` or ``path`` as ``datasets`` keeps sounds, a mapping
            with ``array`` and ``sampling_rate``, or an array of shape ``(samples,)`` that has ``rate`` already; numbers
            with a fraction are between -1 and 1, whole numbers have 16 bits.
        rate: Samples a second to return. Sounds of another rate are resampled.
        where: Place of the sound, for the error.

    Returns:
        Samples of shape ``(samples,)``, the mean of the channels.

    Raises:
        DataError: If it cannot be read, is shorter than :data:`SHORTEST` or not finite, or a package is missing.
    """
    samples, own_rate = _samples(value, rate, where)
    if own_rate != rate:
        check_extra("soxr", "audio", f"sounds of {own_rate:,} samples a second (the model needs {rate:,})")
        import soxr

        samples = soxr.resample(samples, own_rate, rate)
    if len(samples) < SHORTEST * rate:
        raise DataError(f"{where}: a sound of {len(samples) / rate:.3f} s is too short: give at least {SHORTEST:g} s.")
    if not np.isfinite(samples).all():
        raise DataError(f"{where}: the sound has samples that are no finite numbers.")
    return np.ascontiguousarray(samples, dtype=np.float32)


def _samples(value: Any, rate: int, where: str) -> tuple[NDArray[Any], int]:
    """Return the samples of one channel, and how many there are a second."""
    if isinstance(value, Mapping):
        if "array" in value:
            return _of_array(np.asarray(value["array"]), where), int(value.get("sampling_rate") or rate)
        value = value.get("bytes") or value.get("path")
    if isinstance(value, np.ndarray):
        return _of_array(value, where), rate
    if not isinstance(value, bytes | str | Path):
        raise DataError(
            f"{where}: no sound but {value!r}. Give a path, the bytes of a file, or an array of samples, alone or as "
            "{'array': ..., 'sampling_rate': ...}."
        )
    check_extra("soundfile", "audio", "sound files")
    import soundfile

    try:
        source = io.BytesIO(value) if isinstance(value, bytes) else str(value)
        samples, own_rate = soundfile.read(source, dtype="float32", always_2d=True)
    except (RuntimeError, OSError, TypeError) as error:  # soundfile's own are RuntimeErrors
        raise DataError(f"{where}: not readable as a sound ({error}).") from error
    return samples.mean(axis=1), int(own_rate)


def _of_array(array: NDArray[Any], where: str) -> NDArray[Any]:
    if array.ndim != 1 or not (np.issubdtype(array.dtype, np.floating) or array.dtype == np.int16):
        raise DataError(
            f"{where}: an array of {array.dtype} and shape {array.shape}: give samples of one channel, shape "
            "(samples,), as numbers between -1 and 1 or with 16 bits (int16)."
        )
    return array / np.float32(2**15) if array.dtype == np.int16 else array
