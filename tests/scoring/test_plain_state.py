"""A snapshot restores plain state: attributes, containers, arrays, generators, and leaves all else alone."""

import random
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, RandomSampler, Sampler, Subset

from beft_lightning.scoring.plain_state import Snapshot


class Meter:
    """A helper of somebody's module."""

    def __init__(self) -> None:
        self.total = 0.0
        self.values: list[float] = []


class Module(LightningModule):
    """Keeps ``kept``; its submodule keeps the same."""

    def __init__(self, kept: Any = None) -> None:
        super().__init__()
        self.kept = kept
        self.also: Any = None
        self.inner = nn.Sequential(Inner(kept))


class Inner(nn.Module):
    def __init__(self, kept: Any) -> None:
        super().__init__()
        self.kept = kept


class Examples(Dataset[Any]):
    """Keeps ``kept``."""

    def __init__(self, kept: Any = None) -> None:
        self.kept = kept

    def __len__(self) -> int:
        return 4


def snapshot(*owners: object) -> Snapshot:
    taken = Snapshot()
    taken.add(*owners)
    return taken


CONTAINERS: list[tuple[Any, Callable[[Any], object]]] = [
    ([1, 2], lambda kept: kept.append(3)),
    ([[1], [2]], lambda kept: kept[0].clear()),
    ({"a": {"b": [1]}}, lambda kept: kept["a"]["b"].append(2)),
    ({"a": 1, "b": 2}, lambda kept: (kept.pop("a"), kept.update(c=3))),
    (OrderedDict(a=1, b=2), lambda kept: kept.move_to_end("a")),
    (defaultdict(list, a=[1]), lambda kept: (kept["new"].append(1), kept["a"].append(2))),
    (Counter("aab"), lambda kept: kept.update("b")),
    ({1, 2}, lambda kept: kept.add(3)),
    (deque([1, 2], maxlen=2), lambda kept: kept.append(3)),
    (([1], 2), lambda kept: kept[0].append(3)),
    (bytearray(b"ab"), lambda kept: kept.append(1)),
]


@pytest.mark.parametrize(("kept", "change"), CONTAINERS, ids=lambda value: getattr(type(value), "__name__", ""))
def test_containers_get_their_content_back_in_place(kept: Any, change: Callable[[Any], object]) -> None:
    module = Module(kept)
    before = repr(kept)
    taken = snapshot(module)
    change(module.kept)
    assert repr(kept) != before
    taken.restore()
    assert repr(module.kept) == before
    assert module.kept is kept


@pytest.mark.parametrize("kept", [3, 2.5, "text", None, (1, 2), True, np.float32(2), torch.float16])
def test_other_attributes_are_set_again_and_new_ones_are_deleted(kept: Any) -> None:
    module = Module(kept)
    taken = snapshot(module)
    for owner in (module, module.inner[0]):
        owner.kept = "other"  # type: ignore[assignment]
        owner.new = 1  # type: ignore[assignment]
    taken.restore()
    for owner in (module, module.inner[0]):
        assert owner.kept is kept
        assert not hasattr(owner, "new")


@pytest.mark.parametrize("nested", [False, True])
def test_tensors_and_arrays_get_their_values_back_in_place(nested: bool) -> None:
    tensor, array = torch.tensor([1.0, float("nan")]), np.arange(3)
    module = Module({"both": [tensor, array]} if nested else tensor)
    module.also = array
    taken = snapshot(module)
    tensor.add_(1)
    array += 1
    module.also = array + 1
    taken.restore()
    torch.testing.assert_close(tensor, torch.tensor([1.0, float("nan")]), equal_nan=True)
    assert array.tolist() == [0, 1, 2]
    assert module.also is array


def test_tensors_of_another_kind_are_left_alone() -> None:
    module = Module([torch.zeros(1).expand(3), torch.eye(2).to_sparse(), torch.zeros(2, device="meta")])
    frozen = np.zeros(2)
    frozen.flags.writeable = False
    module.also = frozen
    snapshot(module).restore()


def test_a_tensor_of_another_shape_is_restored_too() -> None:
    module = Module(torch.arange(3))
    kept = module.kept
    taken = snapshot(module)
    kept.resize_(7)
    taken.restore()
    assert kept.tolist() == [0, 1, 2]


def test_buffers_submodules_and_modes_are_restored() -> None:
    module = Module()
    module.register_buffer("count", torch.zeros(2))
    taken = snapshot(module)
    module.count.add_(1)  # type: ignore[operator]
    module.count = module.count + 1  # type: ignore[operator, assignment]
    module.register_buffer("late", torch.ones(1), persistent=False)
    module.projection = nn.Linear(1, 1)
    module.inner.eval()
    taken.restore()
    assert dict(module.named_buffers())["count"].tolist() == [0, 0]
    assert list(module.state_dict()) == ["count"]
    assert not hasattr(module, "late")
    assert all(child.training for child in module.modules())


GENERATORS: list[tuple[Any, Callable[[Any], float]]] = [
    (random.Random(1), lambda rng: rng.random()),
    (np.random.RandomState(1), lambda rng: rng.rand()),
    (np.random.default_rng(1), lambda rng: rng.random()),
    (np.random.PCG64(1), lambda rng: float(rng.random_raw())),
    (torch.Generator().manual_seed(1), lambda rng: torch.rand((), generator=rng).item()),
]


@pytest.mark.parametrize(("rng", "draw"), GENERATORS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("owner", [Module, Examples])
def test_generators_go_on_where_they_were(owner: Any, rng: Any, draw: Callable[[Any], float]) -> None:
    for kept in (rng, [rng]):
        taken = snapshot(owner(kept))
        drawn = [draw(rng) for _ in range(3)]
        taken.restore()
        assert [draw(rng) for _ in range(3)] == drawn
    snapshot(Module(random.SystemRandom())).restore()


def test_a_file_is_read_on_from_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text("a\nb\n")
    with path.open() as file:
        file.readline()
        taken = snapshot(Examples(file))
        assert file.readline() == "b\n"
        taken.restore()
        assert file.readline() == "b\n"
    taken.restore()


def test_objects_of_plain_state_are_restored() -> None:
    meter = Meter()
    module = Module([meter])
    taken = snapshot(module)
    meter.total += 1
    meter.values.append(1.0)
    taken.restore()
    assert vars(meter) == {"total": 0.0, "values": []}


def test_objects_that_are_more_than_that_are_left_alone() -> None:
    """Only a part of the state of a writer with a thread, or of a trainer, must not be restored."""
    writer = Meter()
    writer.lock = threading.Lock()  # type: ignore[attr-defined]
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    module = Module(writer)
    module.also = trainer
    taken = snapshot(module)
    writer.total, trainer.should_stop = 1, True
    taken.restore()
    assert writer.total == 1
    assert trainer.should_stop


def test_objects_of_other_submodules_are_left_alone() -> None:
    """That of a quantized layer belongs to its parameters."""
    module = Module()
    state: Any = Meter()
    module.inner[0].state = state
    taken = snapshot(module)
    state.total = 1.0
    taken.restore()
    assert state.total == 1.0


def test_what_torchs_own_modules_note_is_left_alone() -> None:
    """FSDP's wrapper prepares itself in its first step."""
    module = Module()
    wrapper = module.wrapper = nn.Sequential()
    taken = snapshot(module)
    vars(wrapper)["_stream"] = 1
    wrapper.eval()
    taken.restore()
    assert vars(wrapper)["_stream"] == 1
    assert wrapper.training


def test_parameters_are_left_alone_also_in_lists() -> None:
    module = Module()
    module.linear = nn.Linear(1, 1)
    module.kept = list(module.parameters())
    taken = snapshot(module)
    with torch.no_grad():
        module.linear.weight.fill_(5)
    taken.restore()
    assert module.linear.weight.item() == 5


def test_modules_in_containers_are_found() -> None:
    teacher = nn.BatchNorm1d(2)
    module = Module({"teacher": [teacher]})
    taken = snapshot(module)
    assert teacher in taken.modules
    teacher.running_mean += 1  # type: ignore[operator, assignment]
    taken.restore()
    assert teacher.running_mean.tolist() == [0, 0]  # type: ignore[union-attr]


class Places(Sampler[int]):
    def __init__(self) -> None:
        self.places = [0, 1, 2]
        self.epoch = 0


def test_samplers_and_datasets_are_found_wherever_they_are() -> None:
    inner, outer = Examples({"a": 1}), Examples()
    dataset: Any = ConcatDataset([Subset(inner, [0, 1]), outer])
    loader = DataLoader(dataset, sampler=RandomSampler(dataset, generator=torch.Generator().manual_seed(1)))
    places = Places()
    module = Module({"train": loader})
    module.also = places
    taken = snapshot(module)
    inner.kept["b"] = 2
    outer.kept = 3
    places.epoch += 1
    random.shuffle(places.places)
    order = list(loader.sampler)
    taken.restore()
    assert (inner.kept, outer.kept) == ({"a": 1}, None)
    assert vars(places) == {"places": [0, 1, 2], "epoch": 0}
    assert list(loader.sampler) == order


def test_of_datasets_what_is_large_is_left_alone() -> None:
    """Restored is which elements their containers hold."""
    large, small, rows = np.zeros(2**18), np.zeros(2), [[1], [2]]
    dataset = Examples(large)
    dataset.small, dataset.rows = small, rows  # type: ignore[attr-defined]
    taken = snapshot(dataset)
    large += 1
    small += 1
    rows[0].append(1)
    rows.pop()
    taken.restore()
    assert large[0] == 1
    assert small[0] == 0
    assert rows == [[1, 1], [2]]


def test_large_containers_of_modules_are_restored_without_what_is_inside() -> None:
    rows = [[number] for number in range(20_000)]
    taken = snapshot(Module(rows))
    rows[0].append(1)
    rows.pop()
    taken.restore()
    assert len(rows) == 20_000
    assert rows[0] == [0, 1]


def test_cycles_and_any_loader_are_fine() -> None:
    class Stream(IterableDataset[Any]):
        place = 0

        def __iter__(self) -> Iterator[Any]:
            yield from ()

    class Loader:
        def __init__(self) -> None:
            self.itself: Any = [self]
            self.stream = Stream()
            self.given = 0

    loader = Loader()
    taken = snapshot(loader, loader, None, [1], 3)
    loader.given, loader.stream.place = 1, 1
    loader.itself.append(2)
    taken.restore()
    assert (loader.given, loader.stream.place) == (0, 0)
    assert loader.itself == [loader]
