"""A GGUF file is read and written to the bit, except for what is put in."""

from pathlib import Path

import numpy as np
import pytest
import torch

from beft_lightning.errors import ExportError
from beft_lightning.export.gguf_file import GGUFFile
from tests.gguf_files import disk_of, save_gguf

gguf = pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with metadata of several kinds and tensors in several precisions, aligned to 64 bytes."""
    path = tmp_path_factory.mktemp("gguf") / "quantized.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(64)
    writer.add_block_count(2)
    writer.add_bool("llama.a_switch", True)
    writer.add_token_list(["a", "wörd", ""])
    writer.add_array("llama.numbers", [1.5, 2.5])
    values = np.linspace(-1, 1, 3 * 64, dtype=np.float32).reshape(3, 64)
    for name, kind in (("one", "Q4_1"), ("two", "F16"), ("three", "F32"), ("four", "Q8_0")):
        precision = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(f"{name}.weight", gguf.quantize(values, precision), raw_dtype=precision)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_copy_of_a_file_is_the_file(quantized: Path, tmp_path: Path) -> None:
    for path in (quantized, save_gguf(tmp_path)):
        GGUFFile(path).write(tmp_path / "copy.gguf", {})
        assert (tmp_path / "copy.gguf").read_bytes() == path.read_bytes()


def test_values_are_those_that_the_package_gguf_reads(quantized: Path) -> None:
    file = GGUFFile(quantized)
    for tensor in gguf.GGUFReader(quantized).tensors:
        expected = gguf.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(file.values(tensor.name), expected)
        assert file.values(tensor.name).dtype == np.float32
    assert (file.architecture, file.number("block_count"), file.number("head_count")) == ("llama", 2, None)


def test_tensors_are_added_and_replaced_and_all_else_stays(quantized: Path, tmp_path: Path) -> None:
    new = {"two.weight": torch.arange(6.0).view(2, 3), "one.bias": torch.arange(5, dtype=torch.float16)}
    GGUFFile(quantized).write(tmp_path / "new.gguf", new)
    before, after = gguf.GGUFReader(quantized), gguf.GGUFReader(tmp_path / "new.gguf")
    for name, field in before.fields.items():
        if name != "GGUF.tensor_count":
            assert (after.fields[name].contents(), after.fields[name].types) == (field.contents(), field.types)
    found = {tensor.name: tensor for tensor in after.tensors}
    assert sorted(found) == ["four.weight", "one.bias", "one.weight", "three.weight", "two.weight"]
    for name, value in new.items():
        assert found[name].tensor_type == gguf.GGMLQuantizationType.F32
        assert np.array_equal(found[name].data, value.float().numpy())
    for tensor in before.tensors:
        if tensor.name not in new:
            assert found[tensor.name].tensor_type == tensor.tensor_type
            assert np.array_equal(found[tensor.name].data, tensor.data)
    assert all(tensor.data_offset % 64 == 0 for tensor in after.tensors)


def test_a_file_without_an_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.gguf"
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
    with pytest.raises(ExportError, match=r"none.gguf: not a readable GGUF file, or damaged: it names no architecture"):
        GGUFFile(path)


def test_a_full_disk_is_an_error_of_the_system(quantized: Path, tmp_path: Path) -> None:
    with disk_of(quantized.stat().st_size - 100), pytest.raises(OSError, match="too large"):
        GGUFFile(quantized).write(tmp_path / "copy.gguf", {})
