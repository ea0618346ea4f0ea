"""GGUF files: read in place, and written again with tensors added or replaced."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from beft_lightning.errors import ExportError

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor


class GGUFFile:
    """A GGUF file, mapped into memory: tensors are read when they are used.

    Args:
        path: The file.

    Raises:
        ExportError: If the package ``gguf`` is missing, or the file is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader: GGUFReader = _open(path)
        self.tensors: Mapping[str, ReaderTensor] = {str(tensor.name): tensor for tensor in self._reader.tensors}
        self.architecture = str(self._reader.fields["general.architecture"].contents())

    def number(self, name: str) -> int | None:
        """Return a whole number of the architecture's metadata, such as ``block_count``; None if there is none."""
        field = self._reader.fields.get(f"{self.architecture}.{name}")
        value = None if field is None else field.contents()
        return value if isinstance(value, int) else None

    def values(self, name: str) -> np.ndarray[Any, Any]:
        """Return a tensor as fp32, in the order of axes that torch has."""
        from gguf import dequantize

        tensor = self.tensors[name]
        return dequantize(tensor.data, tensor.tensor_type)

    def write(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write a copy with further fp32 tensors, or in place of those of the same name; all else stays to the bit.

        Args:
            path: The new file.
            tensors: The tensors by their names.
        """
        from gguf import GGUFValueType, GGUFWriter

        reader = self._reader
        writer = GGUFWriter(path, self.architecture, endianess=reader.endianess)
        writer.data_alignment = reader.alignment
        for name, field in reader.fields.items():
            # The writer writes the entries of the header by itself.
            if name != "general.architecture" and not name.startswith("GGUF."):
                is_list = field.types[0] is GGUFValueType.ARRAY
                writer.add_key_value(name, field.contents(), field.types[0], field.types[-1] if is_list else None)
        new = {name: tensor.float().contiguous().numpy() for name, tensor in tensors.items()}
        kept = [tensor for name, tensor in self.tensors.items() if name not in new]
        for tensor in kept:
            writer.add_tensor_info(
                tensor.name, tensor.data.shape, tensor.data.dtype, tensor.data.nbytes, tensor.tensor_type
            )
        for name, values in new.items():
            writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
        with _closing(writer):
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for tensor in kept:
                writer.write_tensor_data(tensor.data, tensor_endianess=reader.endianess)
            for values in new.values():
                writer.write_tensor_data(values)


@contextmanager
def _closing(writer: Any) -> Iterator[None]:
    """Close a writer, also where the disk is full: its own ``close`` flushes first."""
    try:
        yield
    finally:
        writer.close()


def _open(path: Path) -> "GGUFReader":
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ExportError("the format 'gguf' needs the package gguf: pip install 'beft-lightning[gguf]'.") from error
    try:
        reader = GGUFReader(path)
        if "general.architecture" not in reader.fields:
            raise ValueError("it names no architecture")
    except OSError:
        raise
    except Exception as error:  # the reader raises whatever the broken part raises
        raise ExportError(f"{path}: not a readable GGUF file, or damaged ({type(error).__name__}: {error}).") from error
    return reader
