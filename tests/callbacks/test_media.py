"""Vision and speech models: scored and selected, trained, exported, and predicting what the fit predicted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything

import beft_lightning
from beft_lightning import AdapterCheckpoint, BiasSelectionCallback, LanguageTaskModule
from beft_lightning.data import AudioTable, ImageTable
from beft_lightning.data.media.datamodule import MediaTable
from beft_lightning.export import export
from tests.media import SPEECH, VISION, picture, save_media_backbone, tone, write_pictures, write_tones


def fit(backbone: str, data: MediaTable, make_trainer: Any, tune: str) -> tuple[LanguageTaskModule, Any]:
    seed_everything(0, verbose=False)  # speech models draw masks from numpy's generator
    module = LanguageTaskModule(backbone, data.task, tune=tune, learning_rate=0.02)
    # Whisper has no key bias, and one that starts at zero is not comparable.
    selection = BiasSelectionCallback(terms=("query", "value"), batches=2)
    trainer = make_trainer(callbacks=[*([selection] if tune == "auto" else []), AdapterCheckpoint()])
    trainer.fit(module, datamodule=data)
    return module, selection.selected


@pytest.mark.parametrize("model_type", [*VISION, *SPEECH])
def test_a_type_from_scores_to_predictions(model_type: str, make_trainer: Any, tmp_path: Path) -> None:
    backbone = save_media_backbone(tmp_path / "base", model_type)
    vision = model_type in VISION
    (write_pictures if vision else write_tones)(tmp_path / "data", 12)
    data_class = ImageTable if vision else AudioTable

    def data() -> MediaTable:
        return data_class(backbone, tmp_path / "data", batch_size=4, dev_share=4, seed=0)

    scored, selected = fit(backbone, data(), make_trainer, "auto")
    ((term, *more)) = selected
    assert term in ("query", "value")
    assert not more
    fixed, _ = fit(backbone, data(), make_trainer, term)
    values, expected = scored.state_dict(), fixed.state_dict()
    assert values.keys() == expected.keys()
    assert all(torch.equal(values[name], expected[name]) for name in expected)
    trained = {name for name, parameter in fixed.named_parameters() if parameter.requires_grad}
    assert {"model.classifier.weight", "model.classifier.bias"} < trained
    assert not any(name.endswith("weight") for name in trained if "classifier" not in name and "projector" not in name)

    fixed.trainer.save_checkpoint(tmp_path / "last.ckpt")
    inputs = [picture(0, 90), picture(1, 91)] if vision else [tone(0, 90), tone(1, 91)]
    assert fixed.model is not None
    processed = fixed.trainer.datamodule.preprocessor.process([*map(np.asarray, inputs)])  # type: ignore[attr-defined]
    with torch.no_grad():
        probabilities = fixed.model.eval()(**processed).logits.softmax(dim=-1).tolist()
    labels = fixed.task.labels
    export(tmp_path / "last.ckpt", tmp_path / "hf", "hf")
    export(tmp_path / "last.ckpt", tmp_path / "peft", "peft")
    for source in ("last.ckpt", "hf", "peft"):
        rows = beft_lightning.load(tmp_path / source).predict(inputs)
        for row, values_ in zip(rows, probabilities, strict=True):
            assert row["probabilities"] == pytest.approx(dict(zip(labels, values_, strict=True)), abs=1e-5)
