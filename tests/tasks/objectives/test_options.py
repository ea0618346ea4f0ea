"""Language models that choose: trained, evaluated, and with the baselines that need no training."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback, LanguageTaskModule
from beft_lightning.data import PROMPT_TASKS, Glue, SuperGlue
from beft_lightning.tasks.objectives.options import OptionObjective
from tests.tiny import LAYERS

MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def data(decoder: str, sst2_dir: str) -> Glue:
    return Glue(decoder, task="sst2", prompt=True, data_dir=sst2_dir, batch_size=8, seed=0)


def test_training_lowers_the_loss_and_only_moves_the_value_biases(
    decoder: str, data: Glue, make_trainer: MakeTrainer
) -> None:
    seed_everything(0, verbose=False)
    module = LanguageTaskModule(decoder, data.task, tune="value", learning_rate=3e-2)
    losses: list[float] = []
    module.on_train_batch_end = lambda outputs, *_: losses.append(outputs["loss"].item())  # type: ignore[method-assign]
    trainer = make_trainer(max_epochs=8)
    trainer.fit(module, datamodule=data)
    assert sum(losses[-6:]) < 0.95 * sum(losses[:6])
    names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    assert names == [f"model.model.decoder.layers.{i}.self_attn.v_proj.bias" for i in range(LAYERS)]
    assert "val_accuracy" in trainer.callback_metrics


def test_the_callback_scores_a_language_model(decoder: str, data: Glue, make_trainer: MakeTrainer) -> None:
    callback = BiasSelectionCallback(batches=4)
    make_trainer(callbacks=[callback]).fit(LanguageTaskModule(decoder, data.task), datamodule=data)
    assert callback.scores is not None
    assert callback.scores.terms["key"].inert
    assert len(callback.trained) == LAYERS


def test_predictions_do_not_depend_on_the_batches(decoder: str, sst2_dir: str, make_trainer: MakeTrainer) -> None:
    module = LanguageTaskModule(decoder, PROMPT_TASKS["sst2"], tune="value")
    rows = []
    for size in (1, 7, 64):
        data = Glue(decoder, task="sst2", prompt=True, data_dir=sst2_dir, eval_batch_size=size)
        predictions: Any = make_trainer().predict(module, datamodule=data)
        rows.append(sorted((row["id"], row["prediction"]) for batch in predictions for row in batch["rows"]))
    assert rows[0] == rows[1] == rows[2]


@pytest.mark.parametrize(
    "options", [{}, {"calibrate": True}, {"demonstrations": 2}, {"demonstrations": 2, "calibrate": True}]
)
def test_baselines_without_training(
    options: dict[str, Any], decoder: str, sst2_dir: str, make_trainer: MakeTrainer
) -> None:
    data = Glue(decoder, task="sst2", prompt=True, data_dir=sst2_dir, max_length=64, **options)
    (result,) = make_trainer().validate(
        LanguageTaskModule(decoder, data.task, tune="value"), datamodule=data, verbose=False
    )
    assert 0 <= result["val_accuracy"] <= 1


def test_calibration_takes_away_what_an_option_has_anyway() -> None:
    """A model that likes option 0 behind every prompt, and option 1 a little more than usual behind this one."""
    objective = OptionObjective(PROMPT_TASKS["sst2"])
    sums = {"prompt": torch.tensor([-1.0, -3.0]), "calibration": torch.tensor([-1.0, -4.0])}

    def log_probabilities(model: Any, batch: dict[str, Any]) -> Any:
        return sums[batch["name"]], torch.ones(2)

    shared: dict[str, Any] = {"name": "prompt", "option_row": torch.tensor([0, 0]), "id": torch.tensor([0])}
    shared["labels"] = torch.tensor([[0]])
    module = "beft_lightning.tasks.objectives.options.option_log_probabilities"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, log_probabilities)
        assert objective.evaluate(None, shared)[0].tolist() == [0]  # type: ignore[arg-type]
        assert objective.evaluate(None, {**shared, "calibration": {"name": "calibration"}})[0].tolist() == [1]  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", ["classification", "lm"])
def test_validation_has_the_loss_of_training(loss: Any, decoder: str, data: Glue) -> None:
    data.task = replace(PROMPT_TASKS["sst2"], loss=loss)
    module = LanguageTaskModule(decoder, data.task, tune="value")
    module.configure_model()
    module.eval()  # without dropout
    objective, model = module.objective, module.model
    assert isinstance(objective, OptionObjective)
    assert model is not None
    features = data.preprocessor.encode(data.task.numbered(data.read("validation")[:8]))
    batch = data.preprocessor.collate_evaluation(features)
    expected = objective.loss(model, data.preprocessor.collate_training(features))
    _, found = objective.evaluate(model, batch)
    torch.testing.assert_close(found, expected)
    assert objective.evaluate(model, {**batch, "labels": batch["labels"][:, :0]})[1] is None


@pytest.mark.parametrize(("task", "layers"), [("copa", 30), ("cb", 4), ("record", 4)])
def test_real_tasks_run_on_a_real_model(
    task: str,
    layers: int,
    smollm2: dict[str, Any],
    short_smollm2: str,
    data_dir: Path,
    make_trainer: MakeTrainer,
    tmp_path: Path,
) -> None:
    source: dict[str, Any] = {"backbone": short_smollm2, "gguf_file": None} if layers == 4 else smollm2
    data = SuperGlue(
        source["backbone"],
        task=task,
        prompt=True,
        gguf_file=source["gguf_file"],
        data_dir=data_dir,
        train_size=2,
        eval_size=2,
        batch_size=2,
        seed=0,
        max_length=256,
    )
    module = LanguageTaskModule(task=data.task, tune="value", **source)
    saving = [ModelCheckpoint(tmp_path, save_last=True, save_top_k=0), AdapterCheckpoint()]
    trainer = make_trainer(callbacks=saving, enable_checkpointing=True)
    trainer.fit(module, datamodule=data)
    assert (
        tmp_path / "last.ckpt"
    ).stat().st_size < 400_000  # 5,760 values, their moments, and what identifies the rest
    assert {f"val_{name}" for name in data.task.metrics} <= set(trainer.callback_metrics)
    biases = [p for n, p in module.named_parameters() if n.endswith("v_proj.bias")]
    assert len(biases) == layers
    assert all(bias.abs().max() > 0 for bias in biases)  # added as zeros, and trained


def test_rows_name_the_options_and_share_out_their_probability() -> None:
    """By the task's labels, by the example's own texts, or by numbers; shorter lists of options are no longer."""
    scores = torch.tensor([[1.0, 3.0, -torch.inf], [2.0, 0.0, 1.0]])
    batch = {"option_row": torch.tensor([0, 0, 1, 1, 1]), "id": torch.tensor([0, 1]), "candidates": [(), ()]}
    texts = [("a", "b"), ("c", "d", "e")]
    cases = [
        (PROMPT_TASKS["record"], texts, ["b", "c"]),
        (PROMPT_TASKS["record"], [(), ()], ["1", "0"]),
        (PROMPT_TASKS["cb"], [(), ()], ["contradiction", "entailment"]),
    ]
    for task, candidates, chosen in cases:
        objective = OptionObjective(task)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(OptionObjective, "scores", lambda *_: scores)
            rows = objective.rows(None, {**batch, "candidates": candidates})  # type: ignore[arg-type]
        assert [row["label"] for row in rows] == chosen
        assert objective.decode(scores.argmax(dim=1), {**batch, "candidates": candidates}) == chosen
        assert list(rows[0]["probabilities"].values())[:2] == pytest.approx(
            torch.tensor([1.0, 3.0]).softmax(0).tolist()
        )
        assert sum(rows[1]["probabilities"].values()) == pytest.approx(1)
    assert set(rows[1]["probabilities"]) == {"entailment", "contradiction", "neutral"}
