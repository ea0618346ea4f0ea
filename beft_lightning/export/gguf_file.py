"""GGUF files: read in place, and written again with tensors added or replaced."""

import struct
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from beft_lightning.errors import ExportError
from beft_lightning.gguf_header import GGUFHeader, TensorInfo, aligned, stored_shape

#: Number of the type fp32.
_FP32 = 0


class GGUFFile:
    """A GGUF file, mapped into memory: tensors are read when they are used.

    Args:
        path: The file.

    Raises:
        ExportError: If the package ``gguf`` is missing, or the file is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._header, self.architecture = _open(path)
        self.tensors: Mapping[str, TensorInfo] = self._header.tensors

    def number(self, name: str) -> int | None:
        """Return a whole number of the architecture's metadata, such as ``block_count``; None if there is none."""
        value = self._header.value(f"{self.architecture}.{name}")
        return value if isinstance(value, int) else None

    def values(self, name: str) -> np.ndarray[Any, Any]:
        """Return a tensor as fp32, in the order of axes that torch has."""
        from gguf import GGMLQuantizationType, dequantize

        info = self.tensors[name]
        stored = np.frombuffer(self._header.data, np.uint8, info.size, info.offset)
        rows = stored.reshape(stored_shape(info.shape, info.type))
        return dequantize(rows, GGMLQuantizationType(info.type)).reshape(info.shape)

    def write(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write a copy with further fp32 tensors, or in place of those of the same name; all else stays to the bit.

        Args:
            path: The new file.
            tensors: The tensors by their names.
        """
        header, source = self._header, memoryview(self._header.data)
        new = {name: tensor.float().contiguous().numpy().astype("<f4") for name, tensor in tensors.items()}
        kept = {name: info for name, info in self.tensors.items() if name not in new}
        contents: dict[str, tuple[tuple[int, ...], int, Any]] = {
            name: (info.shape, info.type, source[info.offset : info.offset + info.size]) for name, info in kept.items()
        }
        contents |= {name: (values.shape, _FP32, values.data.cast("B")) for name, values in new.items()}
        with path.open("wb") as file:
            file.write(header.data[:4] + struct.pack("<IQQ", header.version, len(contents), header.entries))
            file.write(source[header.metadata])
            offset = 0
            for name, (shape, kind, content) in contents.items():
                encoded = name.encode()
                file.write(struct.pack("<Q", len(encoded)) + encoded)
                file.write(struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind, offset))
                offset = aligned(offset + len(content), header.alignment)
            for _, _, content in contents.values():
                _pad(file, header.alignment)
                file.write(content)
            _pad(file, header.alignment)


def _pad(file: BinaryIO, alignment: int) -> None:
    position = file.tell()
    file.write(bytes(aligned(position, alignment) - position))


def _open(path: Path) -> tuple[GGUFHeader, str]:
    """Return the header of a file, and the architecture that it names."""
    if find_spec("gguf") is None:
        raise ExportError("the format 'gguf' needs the package gguf: pip install 'beft-lightning[gguf]'.")
    try:
        header = GGUFHeader(path)
        architecture = header.value("general.architecture")
        if not isinstance(architecture, str):
            raise ValueError("it names no architecture")
    except ValueError as error:
        raise ExportError(f"{path}: not a readable GGUF file, or damaged: {error}.") from error
    return header, architecture
