"""The header of a GGUF file is read as the package gguf reads it, and a damaged one is an error."""

from pathlib import Path

import numpy as np
import pytest

from beft_lightning.gguf_header import GGUFHeader
from tests.gguf_files import save_gguf

gguf = pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_gguf(tmp_path_factory.mktemp("gguf"))


def test_it_says_what_the_package_gguf_says(tmp_path: Path) -> None:
    path = tmp_path / "all.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.data_alignment = 64
    writer.add_custom_alignment(64)
    for number, kind in enumerate(("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")):
        getattr(writer, f"add_{kind}")(f"a.{kind}", number)
    writer.add_float32("a.float32", 0.5)
    writer.add_float64("a.float64", 0.25)
    writer.add_bool("a.bool", True)
    writer.add_string("a.text", "täxt")
    writer.add_array("a.words", ["", "word", "wörd"])
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_key_value("a.lists", [[1, 2], [3]], gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.ARRAY)
    writer.add_string("a.last", "found behind all of them")
    writer.add_tensor("scalar", np.ones(1, np.float32))
    writer.add_tensor("half", np.ones((3, 5), np.float16))
    blocks = gguf.quantize(np.ones((2, 64), np.float32), gguf.GGMLQuantizationType.Q4_1)
    writer.add_tensor("blocks", blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header, reader = GGUFHeader(path), gguf.GGUFReader(path)
    scalars = [name for name, field in reader.fields.items() if len(field.types) == 1 and name[:4] != "GGUF"]
    assert len(scalars) > 12
    for name in scalars:
        assert header.value(name) == reader.fields[name].contents()
    assert header.value("a.words") is header.value("no such name") is None
    assert list(header.tensors) == [tensor.name for tensor in reader.tensors]
    for tensor in reader.tensors:
        info = header.tensors[tensor.name]
        assert (info.shape, info.type) == (tuple(reversed(tensor.shape.tolist())), tensor.tensor_type)
        assert (info.offset, info.size) == (tensor.data_offset, tensor.n_bytes)


def test_a_file_that_ends_too_early_is_an_error(path: Path, tmp_path: Path) -> None:
    content, short = path.read_bytes(), tmp_path / "short.gguf"
    for size in [*range(0, 600, 29), *range(600, len(content), 4999), len(content) - 1]:
        short.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"GGUF|header|beyond|empty file"):
            GGUFHeader(short)


def test_whatever_is_damaged_the_error_is_the_same_kind(path: Path, tmp_path: Path) -> None:
    content, damaged = path.read_bytes(), tmp_path / "damaged.gguf"
    generator, errors = np.random.default_rng(0), 0
    for _ in range(80):
        changed = bytearray(content)
        place = int(generator.integers(4, 600))
        changed[place : place + 8] = generator.bytes(8)
        damaged.write_bytes(changed)
        try:
            GGUFHeader(damaged)
        except ValueError:
            errors += 1
    assert errors > 50


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"GGUF\x00\x00\x00\x03", "its version 50331648 is none of .* or its bytes are in reverse order"),
        (b"GGUF\x01\x00\x00\x00", "its version 1 is none of"),
        (b"PK\x03\x04", "does not begin with GGUF"),
    ],
)
def test_another_kind_of_file_is_an_error(start: bytes, message: str, path: Path, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(start + path.read_bytes()[len(start) :])
    with pytest.raises(ValueError, match=message):
        GGUFHeader(tmp_path / "a.gguf")


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"),
        ("blk.0.attn_k.weight", "blk.0.attn_v.weight"),
    ],
)
def test_two_of_one_name_are_an_error(name: str, other: str, path: Path, tmp_path: Path) -> None:
    """Which of the two is meant, nobody can say."""
    (tmp_path / "a.gguf").write_bytes(path.read_bytes().replace(other.encode(), name.encode()))
    with pytest.raises(ValueError, match=f"it holds '{name}' twice"):
        GGUFHeader(tmp_path / "a.gguf")
