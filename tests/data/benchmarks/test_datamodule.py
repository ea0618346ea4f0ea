"""Where a benchmark looks for its files."""

from pathlib import Path

import pytest

from beft_lightning.data import Glue, SuperGlue
from beft_lightning.errors import DataError


def test_both_layouts_of_data_dir_are_accepted(backbone: str, sst2_dir: str) -> None:
    outer = Glue(backbone, task="sst2", data_dir=sst2_dir).read("train")
    inner = Glue(backbone, task="sst2", data_dir=Path(sst2_dir) / "glue" / "sst2").read("train")
    assert outer == inner
    assert len(outer) == 48


def test_a_folder_with_neither_layout_is_an_error(backbone: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder glue/sst2 and no .tsv file in this `data_dir`"):
        Glue(backbone, task="sst2", data_dir=tmp_path).read("train")


def test_an_unknown_task_is_an_error_that_lists_the_known_ones(backbone: str) -> None:
    with pytest.raises(DataError, match="SuperGlue has no task 'sst2'; choose one of: boolq, cb"):
        SuperGlue(backbone, task="sst2")


def test_the_hubs_files_revision_is_used_unless_another_dataset_is_named(backbone: str) -> None:
    assert SuperGlue(backbone, task="cb").revision == "refs/convert/parquet"
    assert SuperGlue(backbone, task="cb", revision="abc").revision == "abc"
    assert SuperGlue(backbone, task="cb", hub_id="mine").revision is None
    assert Glue(backbone, task="rte").revision is None
