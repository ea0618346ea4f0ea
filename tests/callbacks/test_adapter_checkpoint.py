"""Checkpoints hold what was trained, resume exactly, and refuse what does not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback, load_adapter
from beft_lightning.adapter import keep_trained
from beft_lightning.bias import Architecture, Fused, find_bias_terms, freeze_except
from beft_lightning.checkpoint import FINGERPRINT_KEY, TRAINED_KEY
from beft_lightning.errors import ArchitectureError, BeftError, CheckpointError
from beft_lightning.fingerprint import check_fingerprint, fingerprint
from tests.tiny import LAYERS, ForeignModule, logits, make_model, token_batches

MakeTrainer = Callable[..., Trainer]
#: Models whose biases are there, are parts of fused ones, and are added.
FORMS = ("bert", "gpt2", "llama")


class Validated(ForeignModule):
    """One that can be evaluated."""

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.log("logits", self.net(input_ids=batch[0]).logits.sum())

    def test_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def predict_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        logits: torch.Tensor = self.net(input_ids=batch[0]).logits
        return logits


def foreign(form: str, seed: int = 0) -> Validated:
    """A module whose weights depend on the seed alone, without biases if it is of LLaMA's form."""
    torch.manual_seed(0)
    module = Validated(form, biases=False)
    if seed:
        with torch.no_grad():
            module.net.get_input_embeddings().get_parameter("weight").add_(seed)
    return module


@pytest.fixture
def fit(make_trainer: MakeTrainer, tmp_path: Path) -> Any:
    """Fit a foreign module with selection and adapter checkpoints; returns module, selection and checkpoint path."""

    def run(epochs: int, folder: str = "a", resume: Path | None = None, module: Any = None, seed: int = 4) -> Any:
        seed_everything(seed, verbose=False)
        module = module or ForeignModule(hidden_dropout_prob=0.2)
        selection = BiasSelectionCallback()
        saving = ModelCheckpoint(tmp_path / folder, save_last=True, save_top_k=0)
        trainer = make_trainer(
            callbacks=[selection, saving, AdapterCheckpoint()], max_epochs=epochs, enable_checkpointing=True
        )
        trainer.fit(module, token_batches(), ckpt_path=resume, weights_only=True)
        return module, selection, tmp_path / folder / "last.ckpt"

    return run


def test_the_saved_keys_are_the_trainable_names_and_the_buffers(fit: Any) -> None:
    module, selection, path = fit(1)
    saved = torch.load(path, weights_only=True)["state_dict"]
    buffers = {name for name in module.state_dict() if name not in dict(module.named_parameters())}
    assert set(saved) == set(selection.trained) | buffers
    assert "running" in saved


@pytest.mark.parametrize("form", FORMS)
def test_checkpoints_of_weights_only_hold_trained_values_and_can_be_validated(
    form: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    saving = ModelCheckpoint(tmp_path, filename="during", save_weights_only=True)
    selection = BiasSelectionCallback("fixed", ["value"])
    trainer = make_trainer(callbacks=[selection, saving, AdapterCheckpoint()], enable_checkpointing=True)
    module = foreign(form)
    trainer.fit(module, token_batches())
    trainer.save_checkpoint(tmp_path / "after.ckpt", weights_only=True)
    for name in ("during", "after"):
        content = torch.load(tmp_path / f"{name}.ckpt", weights_only=True)
        assert "optimizer_states" not in content
        assert set(content["state_dict"]) == {*selection.trained, "running"}
        fresh = foreign(form)
        reader = make_trainer(callbacks=[AdapterCheckpoint()])
        reader.validate(fresh, token_batches(), ckpt_path=tmp_path / f"{name}.ckpt", verbose=False)
        assert torch.equal(logits(fresh.net), logits(module.net))
        other = foreign(form, seed=1)
        with pytest.raises(CheckpointError, match="another model of the same shape"):
            reader.validate(other, token_batches(), ckpt_path=tmp_path / f"{name}.ckpt", verbose=False)


@pytest.mark.parametrize("form", FORMS)
def test_a_trainer_without_selection_reads_a_checkpoint(form: str, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """In every command; the biases are added or split as the checkpoint's names say."""
    callbacks = [BiasSelectionCallback("fixed", ["value"]), AdapterCheckpoint()]
    trainer = make_trainer(callbacks=callbacks)
    seed_everything(2, verbose=False)
    module = foreign(form)
    trainer.fit(module, token_batches())
    path = tmp_path / "adapter.ckpt"
    trainer.save_checkpoint(path)
    for command in ("validate", "test", "predict"):
        fresh = foreign(form)
        reader = make_trainer(callbacks=[AdapterCheckpoint()])
        getattr(reader, command)(fresh, token_batches(), ckpt_path=path, weights_only=True)
        assert torch.equal(logits(fresh.net), logits(module.net)), command

    resumed = foreign(form)
    make_trainer(callbacks=[AdapterCheckpoint()], max_epochs=2).fit(
        resumed, token_batches(), ckpt_path=path, weights_only=True
    )
    seed_everything(2, verbose=False)
    whole = foreign(form)
    selection = BiasSelectionCallback("fixed", ["value"])
    make_trainer(callbacks=[selection, AdapterCheckpoint()], max_epochs=2).fit(whole, token_batches())
    assert [name for name, p in resumed.named_parameters() if p.requires_grad] == selection.trained
    torch.testing.assert_close(dict(resumed.state_dict()), dict(whole.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize("form", ["llama", "gpt2"])
def test_a_checkpoint_of_one_term_is_read_where_more_are_candidates(
    form: str, make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model without biases, the others are zero here and nowhere there, which is the same model."""

    def few(self: Validated) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-3)

    def fit(epochs: int, selection: BiasSelectionCallback, resume: Path | None = None) -> Validated:
        seed_everything(2, verbose=False)
        trainer = make_trainer(callbacks=[selection, AdapterCheckpoint()], max_epochs=epochs)
        module = foreign(form)
        trainer.fit(module, token_batches(), ckpt_path=resume, weights_only=True)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return module

    fit(1, BiasSelectionCallback("fixed", ["value"]))
    if form == "llama":  # The module gives its optimizer all parameters, of which there are more now.
        with pytest.raises(CheckpointError, match="resume with the same terms.*that require a gradient"):
            fit(2, BiasSelectionCallback(), tmp_path / "1.ckpt")
    monkeypatch.setattr(Validated, "configure_optimizers", few)
    fitted = fit(1, BiasSelectionCallback("fixed", ["value"]))
    for command in ("validate", "test"):
        fresh = foreign(form)
        reader = make_trainer(callbacks=[BiasSelectionCallback(), AdapterCheckpoint()])
        getattr(reader, command)(fresh, token_batches(), ckpt_path=tmp_path / "1.ckpt", verbose=False)
        assert torch.equal(logits(fresh.net), logits(fitted.net))
    whole = fit(2, BiasSelectionCallback("fixed", ["value"]))
    selection = BiasSelectionCallback()
    resumed = fit(2, selection, tmp_path / "1.ckpt")
    assert selection.selected == ["value"]
    assert torch.equal(logits(resumed.net), logits(whole.net))
    fresh = foreign(form)
    reader = make_trainer(callbacks=[BiasSelectionCallback("fixed", ["value"]), AdapterCheckpoint()])
    reader.validate(fresh, token_batches(), ckpt_path=tmp_path / "2.ckpt", verbose=False)
    assert torch.equal(logits(fresh.net), logits(whole.net))
    with pytest.raises(CheckpointError, match=r"trained with \['value'\], this run asks for \['key'\]"):
        fit(2, BiasSelectionCallback("fixed", ["key"]), tmp_path / "1.ckpt")


class Mapped(LightningModule):
    """A model of nobody's, whose fused layer computes value before key before query."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.ModuleDict({"vkq": nn.Linear(4, 12)}) for _ in range(2))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return torch.stack([block["vkq"](batch[0][:, :4].float()).square().mean() for block in self.blocks]).sum()  # type: ignore[index]

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.log("loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-2)


def test_parts_of_a_fused_bias_that_the_user_maps_are_read(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """By a Trainer and without one; if the mapping is left out, the message asks for it."""
    mine = Architecture("blocks.{}", fused={"vkq": Fused({"value": 1, "key": 1, "query": 1})})
    path = tmp_path / "mapped.ckpt"
    fitted = Mapped()
    selection = BiasSelectionCallback("fixed", ["value"], head="none", architecture=mine)
    trainer = make_trainer(callbacks=[selection, AdapterCheckpoint()])
    trainer.fit(fitted, token_batches())
    trainer.save_checkpoint(path)
    read, loaded, resumed = Mapped(), Mapped(), Mapped()
    make_trainer(callbacks=[AdapterCheckpoint(mine)]).validate(read, token_batches(), ckpt_path=path, verbose=False)
    load_adapter(loaded, path, mine)
    for module in (read, loaded):
        torch.testing.assert_close(dict(module.state_dict()), dict(fitted.state_dict()), rtol=0, atol=0)
    make_trainer(callbacks=[AdapterCheckpoint(mine)], max_epochs=2).fit(resumed, token_batches(), ckpt_path=path)
    assert [name for name, p in resumed.named_parameters() if p.requires_grad] == selection.trained
    with pytest.raises(
        ArchitectureError, match=r"bias of 'blocks.*vkq'.*load_adapter\(module, path, architecture=...\)"
    ):
        load_adapter(Mapped(), path)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("saves_trained_values", [False, True])
def test_a_full_checkpoint_of_before_the_callbacks_loads(
    form: str, saves_trained_values: bool, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    old = foreign(form)
    trainer = make_trainer()
    trainer.fit(old, token_batches())
    path = tmp_path / "full.ckpt"
    trainer.save_checkpoint(path)
    callbacks = [BiasSelectionCallback(), *([AdapterCheckpoint()] if saves_trained_values else [])]
    fresh = foreign(form, seed=1)
    make_trainer(callbacks=callbacks).validate(fresh, token_batches(), ckpt_path=path, verbose=False)
    assert torch.equal(logits(fresh.net), logits(old.net))
    resumed = make_trainer(callbacks=callbacks, max_epochs=2)
    if form == "bert":  # Its parameters have stayed the same, and so has the optimizer's state.
        resumed.fit(foreign(form), token_batches(), ckpt_path=path)
        assert resumed.global_step == 2 * trainer.global_step
    else:
        with pytest.raises(CheckpointError, match=r"saved by a fit without BiasSelectionCallback.*load_adapter"):
            resumed.fit(foreign(form), token_batches(), ckpt_path=path)


@pytest.mark.parametrize("form", FORMS)
def test_trained_values_stay_as_precise_over_half_precision_weights(
    form: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    callbacks = [BiasSelectionCallback("fixed", ["value"]), AdapterCheckpoint()]
    trainer = make_trainer(callbacks=callbacks, precision="bf16-mixed")
    module = foreign(form).bfloat16()
    trainer.fit(module, token_batches())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert all(parameter.dtype == torch.float32 for parameter in module.parameters() if parameter.requires_grad)
    fresh = foreign(form).bfloat16()
    reader = make_trainer(callbacks=[AdapterCheckpoint()], precision="bf16-mixed")
    reader.validate(fresh, token_batches(), ckpt_path=tmp_path / "a.ckpt", verbose=False)
    torch.testing.assert_close(dict(fresh.state_dict()), dict(module.state_dict()), rtol=0, atol=0)


def test_without_a_selection_nothing_is_trained_in_half_precision(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    callbacks = [BiasSelectionCallback("fixed", ["value"]), AdapterCheckpoint()]
    trainer = make_trainer(callbacks=callbacks, precision="bf16-mixed")
    trainer.fit(foreign("bert").bfloat16(), token_batches())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    resuming = make_trainer(callbacks=[AdapterCheckpoint()], max_epochs=2)
    with pytest.raises(BeftError, match="Set precision to 'bf16-mixed'"):
        resuming.fit(foreign("bert").bfloat16(), token_batches(), ckpt_path=tmp_path / "a.ckpt")


def test_a_full_checkpoint_has_to_be_whole(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    path = tmp_path / "full.ckpt"
    trainer = make_trainer()
    trainer.fit(ForeignModule(), token_batches())
    trainer.save_checkpoint(path)
    module = Validated()
    module.another = torch.nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match=r"Missing key.*another.weight"):
        make_trainer(callbacks=[AdapterCheckpoint()]).validate(module, token_batches(), ckpt_path=path)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("order", [("query", "value"), ("value", "query")])
def test_what_an_earlier_fit_trained_is_in_later_checkpoints(
    form: str, order: tuple[str, str], make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    module = foreign(form)
    for term in order:
        callbacks = [BiasSelectionCallback("fixed", [term], head="none"), AdapterCheckpoint()]
        trainer = make_trainer(callbacks=callbacks)
        trainer.fit(module, token_batches())
        trainer.save_checkpoint(tmp_path / f"{term}.ckpt")
    first, second = (torch.load(tmp_path / f"{term}.ckpt", weights_only=True) for term in order)
    assert set(second["beft_trained_before"]) == set(first[TRAINED_KEY])
    assert set(second[TRAINED_KEY]).isdisjoint(first[TRAINED_KEY])
    fresh = foreign(form)
    path = tmp_path / f"{order[1]}.ckpt"
    make_trainer(callbacks=[AdapterCheckpoint()]).validate(fresh, token_batches(), ckpt_path=path, verbose=False)
    assert torch.equal(logits(fresh.net), logits(module.net))

    resumed = foreign(form)
    callbacks = [BiasSelectionCallback("fixed", [order[1]], head="none"), AdapterCheckpoint()]
    trainer = make_trainer(callbacks=callbacks, max_epochs=2)
    trainer.fit(resumed, token_batches(), ckpt_path=path, weights_only=True)
    trainer.save_checkpoint(tmp_path / "resumed.ckpt")
    again = torch.load(tmp_path / "resumed.ckpt", weights_only=True)
    assert again["beft_trained_before"] == second["beft_trained_before"]
    for name in first[TRAINED_KEY]:
        assert torch.equal(again["state_dict"][name], first["state_dict"][name])


@pytest.mark.parametrize(("model_type", "dropout"), [("bert", "hidden_dropout_prob"), ("gpt2", "resid_pdrop")])
def test_a_resumed_run_equals_the_uninterrupted_one(model_type: str, dropout: str, fit: Any) -> None:
    """Bit for bit, although dropout and the loader's order come from the global random number generator."""

    def module() -> ForeignModule:
        return ForeignModule(model_type, **{dropout: 0.2})

    whole, selection, _ = fit(4, module=module())
    first, _, path = fit(2, "first", module=module())
    # Another seed in the resuming process must not matter.
    second, resumed, _ = fit(4, "second", resume=path, module=module(), seed=99)
    assert first.losses + second.losses == whole.losses
    assert len(second.losses) == 16
    torch.testing.assert_close(dict(second.state_dict()), dict(whole.state_dict()), rtol=0, atol=0)
    assert resumed.selected == selection.selected
    assert resumed.scores == selection.scores
    assert resumed.seconds == 0  # the selection was not made again


def test_validation_finds_the_trained_values(fit: Any, make_trainer: MakeTrainer) -> None:
    trained, _, path = fit(1)
    fresh = ForeignModule(hidden_dropout_prob=0.2)
    fresh.load_state_dict(torch.load(path, weights_only=True)["state_dict"], strict=False)
    torch.testing.assert_close(dict(fresh.state_dict()), dict(trained.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize("form", ["gpt2", "bloom", "phi3", "falcon"])
def test_a_part_of_a_fused_bias_is_saved_resumed_and_validated(
    form: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    """Only the value part is in the checkpoint; a fresh model takes it up, whatever is to be done with it."""

    def trainer(epochs: int, folder: str) -> Trainer:
        saving = ModelCheckpoint(tmp_path / folder, save_last=True, save_top_k=0)
        selection = BiasSelectionCallback(approach="fixed", terms=["value"])
        return make_trainer(
            callbacks=[selection, saving, AdapterCheckpoint()], max_epochs=epochs, enable_checkpointing=True
        )

    seed_everything(3, verbose=False)
    whole = ForeignModule(form)
    trainer(2, "whole").fit(whole, token_batches(), weights_only=True)
    seed_everything(3, verbose=False)
    first = ForeignModule(form)
    trainer(1, "first").fit(first, token_batches(), weights_only=True)
    path = tmp_path / "first" / "last.ckpt"
    saved = torch.load(path, weights_only=True)
    values = [name for name in saved["state_dict"] if ".parametrizations.bias." in name]
    assert len(values) == LAYERS
    assert {name.rpartition(".")[2] for name in values} == {"original2"}

    resumed = ForeignModule(form)
    trainer(2, "second").fit(resumed, token_batches(), ckpt_path=path, weights_only=True)
    torch.testing.assert_close(dict(resumed.state_dict()), dict(whole.state_dict()), rtol=0, atol=0)

    fresh = Validated(form)
    trainer(1, "unused").validate(fresh, token_batches(), ckpt_path=path, verbose=False)
    torch.testing.assert_close(dict(fresh.state_dict()), dict(first.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: ForeignModule("opt"), "holds 'net.bert.encoder.layer.0.*', which this model lacks"),
        (
            lambda: ForeignModule(hidden_size=16, num_attention_heads=2),
            r"has shape \(32,\) there and \(16,\) here",
        ),
        (lambda: ForeignModule(vocab_size=30), "its frozen .*word_embeddings.* differs"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(other: Any, message: str, fit: Any) -> None:
    _, _, path = fit(1)
    module = other()
    with pytest.raises(CheckpointError, match=message):
        fit(2, "b", resume=path, module=module)
    assert module.losses == []


def test_a_checkpoint_over_other_frozen_weights_is_refused(fit: Any) -> None:
    _, _, path = fit(1)
    module = ForeignModule()
    # Siblings that were fine-tuned from one checkpoint often share their embeddings.
    with torch.no_grad():
        module.net.get_parameter("bert.encoder.layer.1.output.dense.weight").mul_(1.001)
    with pytest.raises(CheckpointError, match=r"same shape: its frozen 'net.bert.encoder.layer.1.output.dense.weight'"):
        fit(2, "b", resume=path, module=module)


def test_the_same_weights_in_bf16_pass(fit: Any) -> None:
    _, _, path = fit(1)
    module = ForeignModule()
    embeddings = module.net.get_input_embeddings().weight
    embeddings.data = embeddings.data.bfloat16()
    saved, trained = saved_model(path)
    check_fingerprint(saved, fingerprint(module), trained)


def saved_model(path: Path) -> Any:
    checkpoint = torch.load(path, weights_only=True)
    return checkpoint[FINGERPRINT_KEY], set(checkpoint[TRAINED_KEY])


def test_a_checkpoint_that_lacks_a_parameter_is_refused(fit: Any) -> None:
    _, _, path = fit(1)
    module = ForeignModule()
    module.another = torch.nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match="says nothing about 'another.weight', which this model has"):
        fit(2, "b", resume=path, module=module)


def test_resuming_with_another_term_is_refused(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """Query and value have the same shapes, so the optimizer would not notice."""

    def run(term: str, resume: Path | None) -> None:
        module = ForeignModule()
        module.requires_grad_(False)
        for layer in find_bias_terms(module)[term].values():
            layer.requires_grad_(True)
        saving = ModelCheckpoint(tmp_path, save_last=True, save_top_k=0)
        trainer = make_trainer(callbacks=[saving, AdapterCheckpoint()], enable_checkpointing=True)
        trainer.fit(module, token_batches(), ckpt_path=resume, weights_only=True)

    run("query", None)
    with pytest.raises(CheckpointError, match=r"resume with the same selection \(of LanguageTaskModule"):
        run("value", tmp_path / "last.ckpt")


def test_tied_weights_are_left_out_under_all_their_names() -> None:
    module = ForeignModule()
    module.net = make_model("opt", causal=True)
    module.add_module("tied", module.net.get_output_embeddings())
    freeze_except(module, ["value"])
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    keep_trained(module, checkpoint, fingerprint(module))
    assert sorted(checkpoint["state_dict"]) == sorted([*checkpoint[TRAINED_KEY], "running"])


def test_nothing_stays_behind_after_a_run(fit: Any) -> None:
    module, _, _ = fit(1)
    assert module.strict_loading
    assert not module._load_state_dict_pre_hooks


def test_a_remote_checkpoint_resumes(make_trainer: MakeTrainer) -> None:
    """Whatever fsspec reads, Lightning reads; a path is not always one of this machine."""
    trainer = make_trainer(callbacks=[AdapterCheckpoint()])
    trainer.fit(ForeignModule(), token_batches())
    trainer.save_checkpoint("memory://remote/a.ckpt")
    resumed = make_trainer(callbacks=[AdapterCheckpoint()], max_epochs=2)
    resumed.fit(ForeignModule(), token_batches(), ckpt_path="memory://remote/a.ckpt")
    assert resumed.global_step == 2 * trainer.global_step
