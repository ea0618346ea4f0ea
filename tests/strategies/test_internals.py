"""Every private name that this package uses is still there, and stands in strategies/internals/."""

import ast
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities import data
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.core import optimizer
from lightning.pytorch.plugins.io import wrapper
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.trainer.connectors import data_connector
from torch import nn
from torch.distributed.fsdp import _common_utils as fsdp
from torch.utils.data import DataLoader, TensorDataset
from transformers import modeling_gguf_pytorch_utils

import beft_lightning
from beft_lightning.strategies.internals.torch import BUFFERS, FSDP_PREFIX, MODULES, NOT_PERSISTENT

#: The versions with which all tests have passed.
TESTED = {"lightning": "2.6.6", "torch": "2.13.0", "transformers": "5.23.0", "deepspeed": "0.19.8"}


def check(library: str, owner: Any, name: str) -> None:
    cls = owner if isinstance(owner, type) else type(owner)
    assert hasattr(owner, name), (
        f"beft_lightning uses {name!r} of {cls.__name__}, which {library} {version(library)} does not "
        f"have any more; {library} {TESTED[library]} had it."
    )


@pytest.mark.parametrize(
    ("library", "owner", "name"),
    [
        *[
            ("lightning", Trainer(logger=False, enable_checkpointing=False, accelerator="cpu").fit_loop, name)
            for name in ("setup_data", "max_batches", "_data_source", "_combined_loader", "_data_fetcher")
        ],
        ("lightning", data_connector, "_DataLoaderSource"),
        ("lightning", data_connector, "_request_dataloader"),
        ("lightning", data, "_set_sampler_epoch"),
        ("lightning", Trainer(logger=False, enable_checkpointing=False, accelerator="cpu"), "barebones"),
        ("lightning", Trainer(logger=False, enable_checkpointing=False, accelerator="cpu"), "_accelerator_connector"),
        ("lightning", WeightAveraging(), "_average_model"),
        ("lightning", optimizer, "_init_optimizers_and_lr_schedulers"),
        ("lightning", wrapper, "_WrappingCheckpointIO"),
        ("lightning", wrapper._WrappingCheckpointIO(), "_checkpoint_io"),
        ("lightning", LightningModule(), "_on_before_batch_transfer"),
        ("lightning", SingleDeviceStrategy("cpu"), "_forward_redirection"),
        ("torch", DataLoader(TensorDataset(torch.zeros(1))), "_iterator"),
        ("torch", torch.zeros(1), "_version"),
        *[("torch", nn.Module(), name) for name in (MODULES, BUFFERS, NOT_PERSISTENT)],
        *[
            ("transformers", modeling_gguf_pytorch_utils, name)
            for name in ("TENSOR_PROCESSORS", "TensorProcessor", "get_gguf_hf_weights_map")
        ],
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_private_name_is_there(library: str, owner: Any, name: str) -> None:
    check(library, owner, name)


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs DeepSpeed: pip install deepspeed")
def test_the_private_names_of_deepspeed_are_there() -> None:
    """What a parameter gets is set while ZeRO-3 runs, so it is looked for in the source."""
    from deepspeed.runtime.zero import partition_parameters
    from deepspeed.runtime.zero.parameter_offload import DeepSpeedZeRoOffload

    check("deepspeed", DeepSpeedZeRoOffload, "partition_all_parameters")
    source = Path(partition_parameters.__file__).read_text()
    for name in ("ds_id", "ds_shape", "ds_numel", "ds_active_sub_modules"):
        assert f"param.{name} = " in source, f"deepspeed {version('deepspeed')} does not set {name!r} any more"


def test_a_name_that_is_gone_is_reported_in_one_line() -> None:
    with pytest.raises(AssertionError) as caught:
        check("torch", nn.Module(), "_gone")
    assert str(caught.value).splitlines()[0].startswith("beft_lightning uses '_gone' of Module, which torch ")


def test_the_prefix_of_fsdp_is_torchs() -> None:
    assert FSDP_PREFIX == fsdp.FSDP_PREFIX


PACKAGE = Path(beft_lightning.__file__).parent


def private(name: str) -> bool:
    return name.startswith("_") and name[1:2].isalpha()


def own_names(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module defines, those of attributes included."""
    for node in ast.walk(tree):
        match node:
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
                | ast.arg(arg=name)
            ):
                yield name
            case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                yield name


def used_names(tree: ast.Module) -> Iterator[str]:
    """Yield the private names that a module reads, imports, or has as a text that is no part of another."""
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) if private(name):
                yield name
            case ast.ImportFrom(module=source, names=names) if not (source or "").startswith("beft_lightning"):
                yield from (alias.name for alias in names if private(alias.name) or "._" in (source or ""))
            case ast.Constant(value=str(text)) if (
                private(text) and text.strip(".").isidentifier() and id(node) not in parts
            ):
                yield text.strip(".")


def private_names(sources: dict[str, str]) -> dict[str, set[str]]:
    """Return module -> the private names in it that no module defines."""
    trees = {name: ast.parse(source) for name, source in sources.items()}
    own = {name for tree in trees.values() for name in own_names(tree)} | {"_exit"}  # of os, and documented
    return {name: foreign for name, tree in trees.items() if (foreign := set(used_names(tree)) - own)}


def test_private_names_stand_in_one_place() -> None:
    sources = {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.rglob("*.py")}
    found = private_names(sources)
    assert {module for module in found if not module.startswith("strategies/internals/")} == set()
    assert {"_version", "_modules", "_fsdp_wrapped_module"} <= found["strategies/internals/torch.py"]


@pytest.mark.parametrize(
    "source", ["x._gone", "from lightning import _gone", "from lightning._gone import x", "'_gone'"]
)
def test_a_private_name_is_found(source: str) -> None:
    assert set(private_names({"module": source})) == {"module"}


def test_a_name_of_the_package_itself_is_not_foreign() -> None:
    assert private_names({"user": "x._ours", "owner": "class A:\n    _ours = 1"}) == {}
