"""Every private name that this package uses is still there, in strategies/internals.py."""

from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from lightning.fabric.utilities import data
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.plugins.io import wrapper
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.trainer.connectors import data_connector
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

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
        ("lightning", wrapper, "_WrappingCheckpointIO"),
        ("lightning", wrapper._WrappingCheckpointIO(), "_checkpoint_io"),
        ("lightning", LightningModule(), "_on_before_batch_transfer"),
        ("lightning", SingleDeviceStrategy("cpu"), "_forward_redirection"),
        ("torch", DataLoader(TensorDataset(torch.zeros(1))), "_iterator"),
        ("torch", torch.zeros(1), "_version"),
        ("torch", nn.Module(), "_non_persistent_buffers_set"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_private_name_is_there(library: str, owner: Any, name: str) -> None:
    check(library, owner, name)


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs DeepSpeed: pip install deepspeed")
def test_the_private_names_of_deepspeed_are_there() -> None:
    """What a parameter gets is set while ZeRO-3 runs, so it is looked for in the source."""
    from pathlib import Path

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
