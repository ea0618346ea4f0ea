"""Checksums find any change of a value, its name, precision, shape or place."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from beft_lightning import checksums
from beft_lightning.checksums import checksum, tensor_checksum


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.int8, torch.bool])
def test_every_value_counts(dtype: torch.dtype) -> None:
    tensor = (torch.arange(60) % 2).to(dtype)
    seen = {tensor_checksum(tensor)}
    for place in range(60):
        changed = tensor.clone()
        changed[place] = 1 - int(changed[place])
        seen.add(tensor_checksum(changed))
    assert len(seen) == 61


def test_order_counts_and_memory_layout_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    whole = tensor_checksum(tensor)
    assert tensor_checksum(tensor.flip(0)) != whole
    assert tensor_checksum(tensor.T.contiguous().T) == whole
    monkeypatch.setattr(checksums, "_CHUNK", 7)
    assert tensor_checksum(tensor) == whole
    assert tensor_checksum(torch.tensor(3.0)) == tensor_checksum(torch.tensor([3.0]))
    assert tensor_checksum(torch.empty(0)) == tensor_checksum(torch.empty(0, 3))


def test_a_tensor_can_be_resized_afterwards() -> None:
    """FSDP frees and fills the storage of its weights."""
    tensor = torch.randn(6, 10)
    tensor_checksum(tensor)
    assert tensor.untyped_storage().resizable()


def value(tensor: Tensor) -> dict[str, Any]:
    return {"state": {"a": tensor, "b": torch.zeros(2, 3)}, "names": ["a", "b"], "number": 1, "none": None}


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["state"]["a"].__setitem__(0, 2.0),
        lambda content: content["state"].update(a=content["state"]["a"].double()),
        lambda content: content["state"].update(b=torch.zeros(3, 2)),
        lambda content: content["state"].update(c=content["state"].pop("a")),
        lambda content: content["names"].reverse(),
        lambda content: content["names"].append("c"),
        lambda content: content.update(number=1.0),
        lambda content: content.update(number=True),
        lambda content: content.update(none="None"),
    ],
)
def test_values_and_records_count(change: Callable[[dict[str, Any]], Any]) -> None:
    before = value(torch.ones(4))
    assert checksum(before) == checksum(value(torch.ones(4)))
    changed = value(torch.ones(4))
    change(changed)
    assert checksum(changed) != checksum(before)


def test_objects_without_a_stable_text_do_not_break_it() -> None:
    assert checksum({"set": {"b", "a"}, "sparse": torch.eye(2).to_sparse()}) == checksum(
        {"set": {"a", "b"}, "sparse": torch.eye(2).to_sparse()}
    )
