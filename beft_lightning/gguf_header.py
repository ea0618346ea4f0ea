"""The header of a GGUF file: where its metadata and tensors are.

The package ``gguf`` makes several Python objects of every word of the vocabulary, which takes seconds of each reading.
Here words are passed over, and metadata are decoded when they are asked for.
"""

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
#: Number of a type of metadata -> its code in :mod:`struct`.
_NUMBERS: Mapping[int, str] = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_ABSENT = -1
_DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of the file.

    Args:
        shape: Its shape, in the order of axes that torch has.
        type: Number of its type, a ``GGMLQuantizationType`` of the package ``gguf``.
        offset: Where its bytes begin in the file.
        size: Number of its bytes.
    """

    shape: tuple[int, ...]
    type: int
    offset: int
    size: int


class GGUFHeader:
    """The header of a file, which is mapped into memory.

    Args:
        path: The file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is damaged, or none that is known.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            self._read()
        except (struct.error, UnicodeDecodeError, OverflowError, RecursionError) as error:
            raise ValueError(f"its header is damaged: {error}") from error

    def _read(self) -> None:
        if self.data[:4] != _MAGIC:
            raise ValueError("it does not begin with GGUF")
        self._at = 4
        self.version = self._number("I")
        if self.version not in _VERSIONS:
            raise ValueError(f"its version {self.version} is none of {_VERSIONS}, or its bytes are in reverse order")
        tensors, self.entries = self._number("Q"), self._number("Q")
        self._read_metadata()
        self.alignment = int(self.value("general.alignment") or _DEFAULT_ALIGNMENT)
        if self.alignment < 1 or self.alignment & (self.alignment - 1):
            raise ValueError(f"its alignment {self.alignment} is no power of two")
        self._read_tensors(tensors)

    def _read_metadata(self) -> None:
        start = self._at
        #: Name of an entry of the metadata -> its type, and where it begins.
        self._places: dict[str, tuple[int, int]] = {}
        for _ in range(self.entries):
            name, kind = self._string(), self._number("I")
            _put(self._places, name, (kind, self._at))
            self._skip(kind)
        #: All entries of the metadata, as they are.
        self.metadata = slice(start, self._at)

    def _read_tensors(self, count: int) -> None:
        self.tensors: dict[str, TensorInfo] = {}
        found: dict[str, tuple[tuple[int, ...], int, int]] = {}
        for _ in range(count):
            name = self._string()
            dimensions = [self._number("Q") for _ in range(self._number("I"))]
            _put(found, name, (tuple(reversed(dimensions)), self._number("I"), self._number("Q")))
        begin = aligned(self._at, self.alignment)
        for name, (shape, kind, offset) in found.items():
            info = TensorInfo(shape, kind, begin + offset, math.prod(stored_shape(shape, kind)))
            if info.offset + info.size > len(self.data):
                raise ValueError(f"the tensor {name!r} goes beyond its end")
            self.tensors[name] = info

    def value(self, name: str) -> Any:
        """Return a text or a number of the metadata; None if there is none of this name."""
        kind, place = self._places.get(name, (_ABSENT, 0))
        before, self._at = self._at, place
        try:
            if kind == _STRING:
                return self._string()
            return self._number(_NUMBERS[kind]) if kind in _NUMBERS else None
        finally:
            self._at = before

    def _number(self, code: str) -> Any:
        size = struct.calcsize(f"<{code}")
        (value,) = struct.unpack_from(f"<{code}", self.data, self._at)
        self._at += size
        return value

    def _string(self) -> str:
        length = self._number("Q")
        text = self.data[self._at : self._at + length]
        if len(text) < length:
            raise ValueError("it ends in the middle of its header")
        self._at += length
        return text.decode()

    def _skip(self, kind: int) -> None:
        """Go to the end of a value."""
        if kind == _STRING:
            self._skip_strings(1)
        elif kind == _ARRAY:
            kind, count = self._number("I"), self._number("Q")
            if kind == _STRING:
                self._skip_strings(count)
            elif kind in _NUMBERS:
                self._at += count * struct.calcsize(f"<{_NUMBERS[kind]}")
            else:
                for _ in range(count):
                    self._skip(kind)
        elif kind in _NUMBERS:
            self._at += struct.calcsize(f"<{_NUMBERS[kind]}")
        else:
            raise ValueError(f"its metadata have a value of the unknown type {kind}")

    def _skip_strings(self, count: int) -> None:
        data, at, length = self.data, self._at, struct.Struct("<Q")
        for _ in range(count):  # hundreds of thousands
            at += length.size + length.unpack_from(data, at)[0]
        self._at = at


def aligned(position: int, alignment: int) -> int:
    """Return the next position that is a multiple of the alignment."""
    return -(-position // alignment) * alignment


def stored_shape(shape: tuple[int, ...], kind: int) -> tuple[int, ...]:
    """Return the shape of a tensor as it is stored: in bytes along its last axis.

    Args:
        shape: Its shape, in the order of axes that torch has.
        kind: Number of its type.

    Raises:
        ValueError: If the type is unknown, or a row is no whole number of its blocks.
    """
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    *rows, row = shape or (1,)
    if row % block:
        raise ValueError(f"a row of {row} values is no whole number of blocks of {block}")
    return (*rows, row // block * size)


def _put(entries: dict[str, Any], name: str, value: Any) -> None:
    if name in entries:
        raise ValueError(f"it holds {name!r} twice")
    entries[name] = value
