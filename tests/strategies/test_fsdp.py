"""FSDP of the first kind."""

from typing import Any

import pytest

from beft_lightning.checkpoint import FINGERPRINT_KEY, TRAINED_KEY, read_checkpoint
from beft_lightning.errors import BeftError
from tests.strategies.cluster import Cluster, Job
from tests.strategies.worker import Runs


def test_fsdp_refuses_the_matrices_of_lora(results: Job) -> None:
    for result in results("lora", "fsdp"):
        assert "vectors (biases and norms) and the head can be trained, and 'model.bert." in result["error"]
        assert "lora_A.default.weight' is neither" in result["error"]


def test_fsdp_refuses_to_train_a_weight_matrix(cluster: Cluster) -> None:
    """In a group of one process, which is enough to wrap a model."""
    runs = Runs(*cluster.arguments, "matrix", "fsdp")
    trainer = runs.trainer()
    runs.selection.head = ["*pooler.dense.weight"]
    with pytest.raises(BeftError, match="vectors .* and 'model.bert.pooler.dense.weight' is neither.*ModelParallel"):
        trainer.fit(**runs.parts())


@pytest.mark.parametrize("validates", [0.0, 1.0])
def test_one_process_saves_the_identity_of_every_frozen_weight(cluster: Cluster, validates: float) -> None:
    """A single process leaves the outermost weights as plain tensors after a forward pass, not as parameters."""
    runs = Runs(*cluster.arguments, f"identity{validates}", "fsdp")
    options: dict[str, Any] = {"limit_val_batches": validates, "max_epochs": 1}
    trainer, parts = runs.trainer(**options), runs.parts()
    whole = runs.parts()["model"]
    whole.configure_model()
    names = {name for name, _ in whole.named_parameters()}
    trainer.fit(**parts)
    losses = runs.losses.values
    trainer.validate(**parts, verbose=False)
    trainer.save_checkpoint(runs.folder / "evaluated.ckpt")
    saved = read_checkpoint(runs.folder / "epoch=0.ckpt")
    assert saved[FINGERPRINT_KEY].keys() | {*saved[TRAINED_KEY]} == names
    assert read_checkpoint(runs.folder / "evaluated.ckpt")[FINGERPRINT_KEY] == saved[FINGERPRINT_KEY]
    options["max_epochs"] = 2
    runs.trainer(**options).fit(**runs.parts(), ckpt_path=runs.folder / "epoch=0.ckpt", weights_only=True)
    assert len(runs.losses.values) == len(losses)
    evaluated = runs.trainer(limit_val_batches=1)
    evaluated.validate(**runs.parts(), verbose=False)
    with pytest.raises(BeftError, match=r"can be saved, and 'model\.bert\..* is neither: freeze it"):
        evaluated.save_checkpoint(runs.folder / "unfrozen.ckpt")  # a process has parts of such weights
