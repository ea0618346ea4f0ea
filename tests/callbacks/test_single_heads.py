"""Single heads in real fits: what is trained, stored, resumed and exported."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from transformers import AutoModelForSequenceClassification

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback, LanguageTaskModule, load_adapter
from beft_lightning.bias import find_bias_terms, fuse_biases
from beft_lightning.checkpoint import read_checkpoint
from beft_lightning.commands.plan import plan_fit
from beft_lightning.data import GLUE_TASKS, Glue
from beft_lightning.errors import CheckpointError, ScoringError, TermError
from beft_lightning.export import export
from tests.tiny import ForeignModule, logits, token_batches

MakeTrainer = Callable[..., Trainer]
HEADS = ["value.1.h2", "query.0.h0"]


def foreign(form: str) -> ForeignModule:
    return ForeignModule(form, learning_rate=1e-2)


@pytest.mark.parametrize("form", ["bert", "gpt_neox"])
def test_a_fit_trains_the_slices_and_its_checkpoints_hold_them_and_resume(
    form: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    modules = {}
    for name, epochs, start in (("first", 1, None), ("whole", 2, None), ("resumed", 2, tmp_path / "first.ckpt")):
        seed_everything(3, verbose=False)
        callbacks = [BiasSelectionCallback("fixed", HEADS), AdapterCheckpoint()]
        trainer = make_trainer(callbacks=callbacks, max_epochs=epochs)
        modules[name] = foreign(form)
        trainer.fit(modules[name], token_batches(), ckpt_path=start, weights_only=True)
        trainer.save_checkpoint(tmp_path / f"{name}.ckpt")
    resumed, whole = modules["resumed"], modules["whole"]
    assert resumed.losses == whole.losses[8:]
    for name, parameter in whole.named_parameters():
        assert torch.equal(resumed.get_parameter(name), parameter)
    saved = read_checkpoint(tmp_path / "whole.ckpt")
    biases = {name: value for name, value in saved["state_dict"].items() if ".original" in name}
    assert [value.shape for value in biases.values()] == [(8,), (8,)]
    states = saved["optimizer_states"][0]["state"].values()
    assert sorted(len(state["exp_avg"]) for state in states if state["exp_avg"].shape == (8,)) == [8, 8]
    before = foreign(form)
    for term, layers in find_bias_terms(before.net).items():
        for layer, bias in layers.items():
            changed = (find_bias_terms(whole.net)[term][layer] != bias.reshape(-1)).view(-1, 8).any(dim=1).nonzero()
            expected = [int(n.rpartition("h")[2]) for n in HEADS if n.startswith(f"{term}.{layer}.")]
            assert changed.flatten().tolist() == expected
    fresh = foreign(form)
    load_adapter(fresh, tmp_path / "whole.ckpt")
    assert torch.equal(logits(fresh.net), logits(whole.net))
    fuse_biases(fresh)
    assert torch.equal(logits(fresh.net), logits(whole.net))


@pytest.mark.parametrize("form", ["bert", "gpt2"])
def test_a_term_that_was_trained_before_its_heads_stays_in_later_checkpoints(
    form: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    module = foreign(form)
    for terms in (["value"], ["value.1.h2"], ["value.1.h0"]):
        trainer = make_trainer(callbacks=[BiasSelectionCallback("fixed", terms), AdapterCheckpoint()])
        trainer.fit(module, token_batches())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    fresh = foreign(form)
    load_adapter(fresh, tmp_path / "a.ckpt")
    assert torch.equal(logits(fresh.net), logits(module.net))


def test_a_fit_of_other_heads_is_not_resumed(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer(callbacks=[BiasSelectionCallback("fixed", HEADS), AdapterCheckpoint()], max_epochs=0)
    trainer.fit(foreign("bert"), token_batches())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    other = make_trainer(callbacks=[BiasSelectionCallback("fixed", ["value.1.h1"]), AdapterCheckpoint()])
    with pytest.raises(
        CheckpointError, match=r"trained with \['value.1.h2', 'query.0.h0'\].*asks for \['value.1.h1'\]"
    ):
        other.fit(foreign("bert"), token_batches(), ckpt_path=tmp_path / "a.ckpt", weights_only=True)


@pytest.mark.parametrize("form", ["bert", "gpt_neox"])
@pytest.mark.parametrize("approach", ["projection", "sample_fisher", "gradient"])
def test_heads_are_scored_from_the_pass_that_scores_terms(form: str, approach: str, make_trainer: MakeTrainer) -> None:
    """A head's score is that of its slice, and what terms and layers score does not change."""
    scores = {}
    for per_head in (False, True):
        seed_everything(1, verbose=False)
        callback = BiasSelectionCallback(approach, batches=2, patience=0, per_head=per_head, keep=2 if per_head else 1)
        make_trainer(callbacks=[callback], max_epochs=0).fit(foreign(form), token_batches())
        assert callback.scores is not None
        scores[per_head] = callback.scores
    assert callback.selected is not None
    assert len(callback.selected) == 2
    assert not scores[False].terms["value"].heads
    for term, entry in scores[True].terms.items():
        assert entry.layers == pytest.approx(scores[False].terms[term].layers, rel=1e-4, abs=1e-9)
        assert [len(heads) for heads in entry.heads] == [4, 4, 4]
        for layer, heads in zip(entry.layers, entry.heads, strict=True):
            if approach == "gradient":  # the norm
                assert sum(head**2 for head in heads) == pytest.approx(layer**2, rel=1e-4, abs=1e-12)
            if approach == "sample_fisher":  # the mean square
                assert sum(heads) / 4 == pytest.approx(layer, rel=1e-4, abs=1e-12)


def test_a_fit_of_chosen_heads_resumes_and_leaves_as_a_full_vector(
    backbone: str, sst2_dir: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    data = Glue(backbone, task="sst2", data_dir=sst2_dir, train_size=16, batch_size=8)
    modules = {}
    for name, epochs, start in (("first", 1, None), ("whole", 2, None), ("resumed", 2, tmp_path / "first.ckpt")):
        seed_everything(3, verbose=False)
        selection = BiasSelectionCallback(budget=40, per_head=True, batches=2, patience=0)
        trainer = make_trainer(callbacks=[selection, AdapterCheckpoint()], max_epochs=epochs)
        modules[name] = LanguageTaskModule(backbone, data.task, learning_rate=1e-2)
        trainer.fit(modules[name], datamodule=data, ckpt_path=start, weights_only=True)
        trainer.save_checkpoint(tmp_path / f"{name}.ckpt")
        assert selection.selected is not None
        assert len(selection.selected) == 5
        assert selection.scores is not None
        assert selection.scores.terms["value"].heads
    trained = [p.shape for n, p in modules["whole"].named_parameters() if p.requires_grad and ".original" in n]
    assert trained == [(8,)] * 5
    assert torch.equal(logits(modules["resumed"].model), logits(modules["whole"].model))
    fresh = LanguageTaskModule(backbone, data.task)
    fresh.configure_model()
    load_adapter(fresh, tmp_path / "whole.ckpt")
    export(tmp_path / "whole.ckpt", tmp_path / "hf", "hf")
    exported = AutoModelForSequenceClassification.from_pretrained(tmp_path / "hf")
    for other in (fresh.model, exported):
        assert torch.equal(logits(other), logits(modules["whole"].model))


def test_a_term_without_heads_is_no_candidate(make_trainer: MakeTrainer) -> None:
    callback = BiasSelectionCallback("gradient", ["value", "mlp_in"], per_head=True)
    with pytest.raises(TermError, match="'mlp_in' has no heads; the terms of this model that have some: query, key"):
        make_trainer(callbacks=[callback]).fit(foreign("bert"), token_batches())
    with pytest.raises(ScoringError, match="leave it out, or `scores` and `per_head`"):
        BiasSelectionCallback("fixed", ["value"], per_head=True)


def test_the_plan_of_heads_counts_their_values(backbone: str) -> None:
    task = GLUE_TASKS["sst2"]
    head = plan_fit(LanguageTaskModule(backbone, task, tune="head")).trained_parameters
    assert plan_fit(LanguageTaskModule(backbone, task, tune="value.1.h2,value.0.h1")).trained_parameters == head + 16
    chosen = plan_fit(LanguageTaskModule(backbone, task), BiasSelectionCallback(keep=3, per_head=True))
    assert (chosen.trained_parameters, chosen.tune) == (head + 24, "3 heads of query, key, value")
