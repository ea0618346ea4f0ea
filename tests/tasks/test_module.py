"""The LightningModule for language tasks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback, LanguageTaskModule
from beft_lightning.bias import architecture_of
from beft_lightning.data import GLUE_TASKS, Glue, SuperGlue
from beft_lightning.errors import BackboneError, BeftError
from beft_lightning.scoring.reference_adam import ReferenceAdam
from beft_lightning.strategies.adapter import AdapterStrategy
from tests.tiny import LAYERS, save_backbone

MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def data(backbone: str, sst2_dir: str) -> Glue:
    return Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=8, seed=0)


def test_the_value_bias_of_a_real_encoder_learns_real_sentences(
    minilm: str, data_dir: Path, make_trainer: MakeTrainer
) -> None:
    """It learns 32 sentences by heart, which the head alone cannot in the same time (loss about 0.4)."""
    seed_everything(0, verbose=False)
    data = Glue(minilm, task="sst2", data_dir=data_dir, train_size=32, seed=0)
    trainer = make_trainer(max_epochs=30, limit_val_batches=0)
    trainer.fit(LanguageTaskModule(minilm, data.task, tune="value", learning_rate=1e-2), datamodule=data)
    assert trainer.callback_metrics["train_loss"] < 0.25


def test_auto_leaves_the_choice_to_the_callback(backbone: str, data: Glue, make_trainer: MakeTrainer) -> None:
    module, callback = LanguageTaskModule(backbone, data.task), BiasSelectionCallback()
    make_trainer(callbacks=[callback]).fit(module, datamodule=data)
    assert len(callback.trained) == LAYERS + 3
    assert [n for n, p in module.named_parameters() if p.requires_grad] == callback.trained


@pytest.mark.parametrize("model_type", ["t5", "gpt2", "falcon", "deberta-v2"])
def test_other_types_classify(model_type: str, sst2_dir: str, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path / "backbone", model_type)
    data = Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=8, seed=0)
    module, callback = LanguageTaskModule(backbone, data.task), BiasSelectionCallback("magnitude", batches=3)
    trainer = make_trainer(callbacks=[callback])
    trainer.fit(module, datamodule=data)
    assert callback.scores is not None
    assert callback.selected is not None
    assert callback.selected[0] not in (architecture_of(module).inert or ())
    assert 0 <= trainer.callback_metrics["val_accuracy"] <= 1


def test_auto_without_the_callback_is_an_error(backbone: str, data: Glue, make_trainer: MakeTrainer) -> None:
    with pytest.raises(BeftError, match=r"add BiasSelectionCallback\(\) .* or say what to train"):
        make_trainer().fit(LanguageTaskModule(backbone, data.task), datamodule=data)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_equals_the_uninterrupted_one(
    workers: int, backbone: str, data: Glue, sst2_dir: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    def run(epochs: int, folder: str, resume: Any = None) -> dict[str, torch.Tensor]:
        seed_everything(0, verbose=False)
        module = LanguageTaskModule(backbone, data.task)
        saving = ModelCheckpoint(tmp_path / folder, save_last=True, save_top_k=0)
        callbacks = [BiasSelectionCallback(), saving, AdapterCheckpoint()]
        trainer = make_trainer(callbacks=callbacks, max_epochs=epochs, enable_checkpointing=True)
        fresh = Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=8, seed=0, num_workers=workers)
        trainer.fit(module, datamodule=fresh, ckpt_path=resume, weights_only=True)
        return {**module.state_dict(), "loss": trainer.callback_metrics["val_loss"]}

    whole = run(3, "whole")
    run(1, "part")
    torch.testing.assert_close(run(3, "rest", tmp_path / "part" / "last.ckpt"), whole, rtol=0, atol=0)


def test_the_default_optimizer_is_the_published_rule_at_the_tasks_rate(backbone: str) -> None:
    module = LanguageTaskModule(backbone, GLUE_TASKS["rte"], tune="value")
    module.configure_model()
    optimizer = module.configure_optimizers()
    assert isinstance(optimizer, ReferenceAdam)
    assert optimizer.defaults["lr"] == 1e-3
    assert sum(len(group["params"]) for group in optimizer.param_groups) == LAYERS + 3


def test_optimizer_and_scheduler_can_be_chosen(backbone: str) -> None:
    module = LanguageTaskModule(
        backbone,
        GLUE_TASKS["rte"],
        tune="value",
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.5),
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer),
    )
    module.configure_model()
    (optimizer,), (schedule,) = module.configure_optimizers()
    assert isinstance(optimizer, torch.optim.SGD)
    assert schedule["scheduler"].optimizer is optimizer


def test_two_learning_rates_are_an_error(backbone: str) -> None:
    with pytest.raises(BeftError, match="learning_rate belongs to the default optimizer"):
        LanguageTaskModule(backbone, GLUE_TASKS["rte"], learning_rate=1.0, optimizer=torch.optim.SGD)


def write_task(folder: Path, header: str, row: str) -> Path:
    for split in ("train", "validation", "validation_matched", "validation_mismatched"):
        (folder / f"{split}.tsv").write_text("\n".join([header, *[row] * 4]) + "\n")
    return folder


def test_regression_reports_correlations(backbone: str, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    folder = write_task(tmp_path, "sentence1\tsentence2\tscore", "the film\tthe story\t2.5")
    data = Glue(backbone, task="stsb", data_dir=folder, batch_size=2)
    trainer = make_trainer()
    trainer.fit(LanguageTaskModule(backbone, data.task, tune="value"), datamodule=data)
    assert {"val_spearman", "val_pearson", "val_loss"} <= set(trainer.callback_metrics)


def test_two_evaluation_splits_are_reported_apart(backbone: str, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    folder = write_task(tmp_path, "sentence1\tsentence2\tgold_label", "the film\tthe story\tneutral")
    data = Glue(backbone, task="mnli", data_dir=folder, batch_size=2)
    trainer = make_trainer()
    module = LanguageTaskModule(backbone, data.task, tune="value")
    trainer.fit(module, datamodule=data)
    assert {"val_matched_accuracy", "val_mismatched_accuracy"} <= set(trainer.callback_metrics)
    trainer.test(module, datamodule=data, verbose=False)
    assert {"test_matched_accuracy", "test_mismatched_accuracy"} <= set(trainer.callback_metrics)


@pytest.mark.parametrize("task", ["cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli"])
def test_every_glue_task_runs_on_its_real_files(
    task: str, data_dir: Path, minilm: str, make_trainer: MakeTrainer
) -> None:
    data = Glue(minilm, task=task, data_dir=data_dir, train_size=32, max_length=32, seed=0)
    trainer = make_trainer(callbacks=[BiasSelectionCallback(batches=4, patience=0)], limit_val_batches=1)
    trainer.fit(LanguageTaskModule(minilm, data.task), datamodule=data)
    (prefix,) = {"val_matched_" if task == "mnli" else "val_"}
    assert all(torch.isfinite(trainer.callback_metrics[f"{prefix}{name}"]) for name in data.task.metrics)


@pytest.mark.parametrize("task", ["cb", "copa", "wic"])
def test_super_glue_tasks_run_on_their_real_files(
    task: str, data_dir: Path, minilm: str, make_trainer: MakeTrainer
) -> None:
    data = SuperGlue(minilm, task=task, data_dir=data_dir, train_size=32, max_length=32, seed=0)
    trainer = make_trainer(limit_val_batches=1)
    trainer.fit(LanguageTaskModule(minilm, data.task, tune="value"), datamodule=data)
    assert f"val_{data.task.metrics[0]}" in trainer.callback_metrics


def test_half_precision_weights_need_mixed_precision(backbone: str, data: Glue, make_trainer: MakeTrainer) -> None:
    module = LanguageTaskModule(backbone, data.task, dtype="bfloat16")
    with pytest.raises(BeftError, match=r"Set precision to 'bf16-mixed'"):
        make_trainer(callbacks=[BiasSelectionCallback()]).fit(module, datamodule=data)


def test_half_precision_weights_train_fp32_biases(backbone: str, data: Glue, make_trainer: MakeTrainer) -> None:
    module = LanguageTaskModule(backbone, data.task, dtype="bfloat16")
    callback = BiasSelectionCallback()
    make_trainer(callbacks=[callback], precision="bf16-mixed").fit(module, datamodule=data)
    parameters = dict(module.named_parameters())
    assert {parameters[name].dtype for name in callback.trained} == {torch.float32}
    assert parameters["model.bert.embeddings.word_embeddings.weight"].dtype == torch.bfloat16


def test_a_linear_schedule_ends_at_zero(backbone: str, data: Glue, make_trainer: MakeTrainer) -> None:
    rates: list[float] = []
    module = LanguageTaskModule(backbone, data.task, tune="value", schedule="linear", learning_rate=0.1)
    module.on_train_batch_end = lambda *_: rates.append(  # type: ignore[method-assign]
        module.trainer.optimizers[0].param_groups[0]["lr"]
    )
    make_trainer(max_epochs=2).fit(module, datamodule=data)
    assert rates == pytest.approx([0.1 * (1 - step / 12) for step in range(1, 13)])


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize("tune", ["auto", "value"])
@pytest.mark.parametrize(("model_type", "positions"), [("bert", 8), ("roberta", 9)])  # of 9, RoBERTa does not use one
def test_inputs_longer_than_the_models_positions_are_an_error(
    model_type: str, positions: int, tune: str, stage: str, sst2_dir: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    short = save_backbone(tmp_path, model_type, max_position_embeddings=positions)
    data = Glue(short, task="sst2", data_dir=sst2_dir, batch_size=8, max_length=9)
    callbacks = [BiasSelectionCallback()] if tune == "auto" else []
    with pytest.raises(BeftError, match="has 9 tokens, .* has 8 positions: set data.max_length to at most 8"):
        getattr(make_trainer(callbacks=callbacks), stage)(LanguageTaskModule(short, data.task, tune=tune), data)


def test_a_prompt_needs_a_causal_language_model(backbone: str, sst2_dir: str, make_trainer: MakeTrainer) -> None:
    data = Glue(backbone, task="sst2", prompt=True, data_dir=sst2_dir)
    with pytest.raises(BackboneError, match="needs a causal language model, and bert is an encoder"):
        make_trainer().validate(LanguageTaskModule(backbone, data.task, tune="value"), datamodule=data)


class _Rates(Callback):
    """Note the learning rate of every step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])


def test_a_linear_schedule_goes_on_with_more_epochs(
    backbone: str, data: Glue, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    """The checkpoint stands at the end of a shorter line; the longer run falls along its own."""

    def fit(epochs: int, resume: Path | None = None) -> list[float]:
        noted = _Rates()
        saving = [ModelCheckpoint(tmp_path / str(epochs), save_last=True, save_top_k=0), AdapterCheckpoint(), noted]
        module = LanguageTaskModule(backbone, data.task, tune="value", learning_rate=1e-2, schedule="linear")
        trainer = make_trainer(max_epochs=epochs, callbacks=saving, enable_checkpointing=True)
        trainer.fit(module, datamodule=data, ckpt_path=resume)
        return noted.rates

    steps = len(fit(1))
    # The first step after resuming still has the rate that the checkpoint ended with.
    rates = fit(3, resume=tmp_path / "1" / "last.ckpt")[1:]
    assert rates == pytest.approx([1e-2 * (1 - n / (3 * steps)) for n in range(steps + 1, 3 * steps)])


def kept_bytes(module: LanguageTaskModule, batch: dict[str, Any]) -> int:
    """Bytes that a training step keeps for its backward pass; the step's gradients stay in the parameters."""
    storages: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    assert module.objective is not None
    assert module.model is not None
    seed_everything(0, verbose=False)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = module.objective.loss(module.model, batch)
    loss.backward()
    return sum(storages.values())


@pytest.mark.parametrize("prompt", [False, True])
def test_activation_checkpointing_keeps_less_and_changes_nothing(
    prompt: bool, backbone: str, decoder: str, sst2_dir: str, make_trainer: MakeTrainer
) -> None:
    """With dropout, which has to fall alike when a layer is computed again."""
    model = decoder if prompt else backbone
    data = Glue(model, task="sst2", prompt=prompt, data_dir=sst2_dir, batch_size=8, seed=0)
    data.trainer = make_trainer()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    gradients, kept = [], []
    for checkpointing in (False, True):
        seed_everything(0, verbose=False)
        module = LanguageTaskModule(model, data.task, tune="value", activation_checkpointing=checkpointing)
        module.configure_model()
        kept.append(kept_bytes(module.train(), batch))
        gradients.append([p.grad for p in module.parameters() if p.requires_grad])
    assert len(gradients[0]) >= LAYERS
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert kept[1] < 0.7 * kept[0]


def test_a_type_without_activation_checkpointing_is_an_error(backbone: str, data: Glue, monkeypatch: Any) -> None:
    module = LanguageTaskModule(backbone, data.task, tune="value", activation_checkpointing=True)
    monkeypatch.setattr("transformers.BertForSequenceClassification.supports_gradient_checkpointing", False)
    with pytest.raises(BackboneError, match="activation_checkpointing: transformers has none for bert"):
        module.configure_model()


def test_activation_checkpointing_is_refused_where_layers_cannot_be_computed_again(
    backbone: str, data: Glue, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AdapterStrategy, "recomputes", False)
    module = LanguageTaskModule(backbone, data.task, tune="value", activation_checkpointing=True)
    with pytest.raises(BeftError, match=r"does not work under ZeRO-3.*or use ModelParallelStrategy \(FSDP2\)"):
        make_trainer().fit(module, datamodule=data)


def test_a_call_is_one_of_the_model(backbone: str, decoder: str, sst2_dir: str) -> None:
    for prompt, base in ((False, backbone), (True, decoder)):
        data = Glue(base, task="sst2", prompt=prompt, data_dir=sst2_dir, seed=0)
        data.setup("test")
        batch = next(iter(data.test_dataloader()[0]))
        module: Any = LanguageTaskModule(base, data.task, tune="value").eval()
        output = module(batch)
        inputs = module.objective.inputs(module.model, batch)
        assert "loss" not in output
        assert torch.equal(output.logits, module.model(**inputs).logits)
        assert torch.equal(output.logits, module(**inputs).logits)
