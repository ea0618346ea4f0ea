"""A trained model that predicts new texts."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

import beft_lightning
from beft_lightning import AdapterCheckpoint, LanguageTaskModule
from beft_lightning.checkpoint import CHECKSUM_KEY, MODEL_KEY, content_checksum, read_checkpoint
from beft_lightning.data import Glue, Table
from beft_lightning.errors import BeftError, CheckpointError, DataError
from beft_lightning.loading import load
from tests.tiny import sentences


@pytest.fixture
def fit(backbone: str, make_trainer: Any, tmp_path: Path) -> Any:
    """Fit on a table, and return the checkpoint and the module's own outputs for the test file."""

    def run(
        kind: str = "classification", text: str = "review", precision: Any = None, offset: float = 0, **options: Any
    ) -> tuple[str, Tensor]:
        frame = pd.DataFrame(sentences(40), columns=["review", "verdict"]).assign(other="the film")
        if kind == "classification":
            frame["verdict"] = frame.verdict.map({0: "neg", 1: "pos"})
        else:
            frame["verdict"] += offset
        frame.to_csv(tmp_path / "train.csv", index=False)
        frame[:20].to_csv(tmp_path / "test.csv", index=False)
        table: dict[str, Any] = {"text": text, "label": "verdict", "kind": kind, "max_length": 7, "batch_size": 4}
        data = Table(backbone, str(tmp_path / "train.csv"), test=str(tmp_path / "test.csv"), seed=0, **table)
        module = LanguageTaskModule(backbone, data.task, tune="value", **options)
        trainer = make_trainer(callbacks=[AdapterCheckpoint()], max_epochs=1, precision=precision)
        trainer.fit(module, datamodule=data)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        data.setup("predict")
        outputs: dict[int, Any] = {}
        objective: Any = module.objective
        assert module.model is not None
        for batch in data.predict_dataloader()[0]:
            with torch.no_grad():
                logits = objective.logits(module.model.eval(), batch).float()
            outputs |= zip(batch["id"].tolist(), logits, strict=True)
        return str(tmp_path / "last.ckpt"), torch.stack([outputs[i] for i in range(20)])

    return run


TEXTS = [text for text, _ in sentences(20)]


def test_predictions_are_those_of_the_trained_module_in_the_order_of_the_inputs(fit: Any) -> None:
    """They hang on the trained values, on the fit's longest input, and not on the batches."""
    checkpoint, logits = fit(learning_rate=0.1)
    expected = logits.softmax(dim=-1)
    predictor = beft_lightning.load(checkpoint)
    for batch_size in (64, 3):
        rows = predictor.predict(TEXTS, batch_size)
        assert [row["review"] for row in rows] == TEXTS
        for row, (negative, positive) in zip(rows, expected.tolist(), strict=True):
            assert row["probabilities"] == pytest.approx({"neg": negative, "pos": positive}, abs=1e-5)
            assert max(row["probabilities"], key=row["probabilities"].get) == row["label"]
    assert predictor.model.config.id2label == {0: "neg", 1: "pos"}
    assert predictor.tokenizer("film")["input_ids"]


def test_scores_are_those_of_the_trained_module(fit: Any) -> None:
    checkpoint, expected = fit("regression", offset=70)
    assert expected.mean() == pytest.approx(70.5, abs=1)  # one epoch would not learn it from 0
    rows = load(checkpoint).predict([{"review": text} for text in TEXTS])
    assert [row["score"] for row in rows] == pytest.approx(expected.flatten().tolist(), abs=1e-5)
    assert set(rows[0]) == {"review", "score"}


def test_rows_keep_their_columns(fit: Any) -> None:
    predictor = load(fit(text="review,other")[0])
    row = {"review": "a film", "other": "the plot", "label": "mine", "number": 3}
    (predicted, nested) = predictor.predict([row, {"label": "mine", "input_label": "its", **row}])
    assert set(predicted) == {"review", "other", "input_label", "number", "label", "probabilities"}
    assert (predicted["input_label"], predicted["number"]) == ("mine", 3)
    assert (nested["input_label"], nested["input_input_label"]) == ("its", "mine")
    assert predicted["label"] in ("neg", "pos")
    with pytest.raises(DataError, match="row 1: a text alone, but the model reads review and other"):
        predictor.predict(["a film"])


def test_weights_in_half_precision_meet_biases_in_fp32(fit: Any) -> None:
    with torch.autocast("cpu", torch.bfloat16):  # for the outputs to compare with, which no trainer computes
        checkpoint, expected = fit("regression", dtype="bfloat16", precision="bf16-mixed")
    scores = [row["score"] for row in load(checkpoint).predict(TEXTS)]
    assert scores == pytest.approx(expected.flatten().tolist(), abs=1e-2)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["a film", " "], "row 2: column 'review' is empty"),
        ([{"text": "a film"}], "row 1: no column 'review', which train needs; there are: text"),
        ([{"review": None}], "row 1: column 'review' is empty"),
        ([{"review": 3}], "row 1: column 'review' is no text but 3"),
        ("a film", "takes a list of texts"),
        (["a film", 5], "row 2: no text or row with columns but 5"),
        ([["a", "b"]], r"row 1: no text or row with columns but \['a', 'b'\]"),
    ],
)
def test_inputs_that_are_no_texts(inputs: Any, message: str, fit: Any) -> None:
    with pytest.raises(DataError, match=message):
        load(fit()[0]).predict(inputs)


def test_no_inputs_have_no_predictions(fit: Any) -> None:
    predictor = load(fit()[0])
    assert predictor.predict([]) == []
    with pytest.raises(DataError, match="batch_size 0 must be at least 1"):
        predictor.predict(["a film"], batch_size=0)


def test_a_checkpoint_of_a_benchmark_predicts_new_texts_too(
    backbone: str, sst2_dir: str, make_trainer: Any, tmp_path: Path
) -> None:
    data = Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=8, seed=0)
    trainer = make_trainer(callbacks=[AdapterCheckpoint()], limit_val_batches=0)
    trainer.fit(LanguageTaskModule(backbone, data.task, tune="value"), datamodule=data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert set(load(tmp_path / "last.ckpt").predict(["a film"])[0]) == {"sentence", "label", "probabilities"}


def _change(checkpoint: str, record: dict[str, Any]) -> str:
    """Rewrite a checkpoint with another record of the model."""
    content = {key: value for key, value in read_checkpoint(checkpoint).items() if key != CHECKSUM_KEY}
    content[MODEL_KEY] = record
    torch.save({**content, CHECKSUM_KEY: content_checksum(content)}, checkpoint)
    return checkpoint


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (None, "from a version whose checkpoints do not say .* `predict --config CONFIG --ckpt_path "),
        ({"name": "a", "kind": "generation", "max_length": 8}, "from a version whose .* `predict --config CONFIG"),
        ({"name": "a", "kind": "regression"}, "malformed: the task of 'beft_model' has no valid 'max_length'"),
        ({"name": "a", "kind": "regression", "max_length": 8, "text": "b"}, "has no valid 'text'"),
        ([], "has no valid 'name'"),
    ],
)
def test_a_checkpoint_that_does_not_say_how_to_encode_texts(task: Any, message: str, fit: Any) -> None:
    checkpoint = fit()[0]
    record = read_checkpoint(checkpoint)[MODEL_KEY] | {"task": task}
    if task is None:
        del record["task"]
    with pytest.raises(CheckpointError, match=message):
        load(_change(checkpoint, record))


def test_outputs_that_are_not_finite_are_an_error_that_names_the_row(fit: Any) -> None:
    predictor = load(fit()[0])
    predictor.model.get_parameter("classifier.bias").data[0] = torch.nan
    with pytest.raises(BeftError, match=r"row 1: the model's outputs are not finite"):
        predictor.predict(TEXTS[:2])
