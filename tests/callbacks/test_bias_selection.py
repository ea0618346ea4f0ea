"""The callback inside real fits."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from transformers import AutoConfig, AutoModelForImageClassification, ResNetConfig, ResNetForImageClassification

from beft_lightning import BiasSelectionCallback, LanguageTaskModule
from beft_lightning.data import Glue
from beft_lightning.errors import ArchitectureError, BeftError, CheckpointError, ScoringError, TermError
from beft_lightning.scoring.approaches import APPROACHES
from beft_lightning.scoring.selection import SelectionRule
from tests.tiny import LAYERS, ForeignModule, make_model, token_batches

MakeTrainer = Callable[..., Trainer]


def fit(make_trainer: MakeTrainer, module: ForeignModule, callback: BiasSelectionCallback, **options: Any) -> Any:
    trainer = make_trainer(callbacks=[callback], **options)
    trainer.fit(module, token_batches())
    return trainer


def trainable(module: torch.nn.Module) -> list[str]:
    return [name for name, parameter in module.named_parameters() if parameter.requires_grad]


def test_it_freezes_a_foreign_module_to_the_winner_and_the_head(make_trainer: MakeTrainer) -> None:
    module, callback = ForeignModule(), BiasSelectionCallback()
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    fit(make_trainer, module, callback)
    assert callback.selected is not None
    (winner,) = callback.selected
    head = ["net.bert.pooler.dense.bias", "net.classifier.weight", "net.classifier.bias", "extra.weight", "extra.bias"]
    biases = [f"net.bert.encoder.layer.{i}.attention.self.{winner}.bias" for i in range(LAYERS)]
    assert trainable(module) == callback.trained == biases + head
    moved = [name for name, parameter in module.named_parameters() if not torch.equal(parameter, before[name])]
    assert moved == callback.trained


@pytest.mark.parametrize(
    ("precision", "workers"), [("32-true", {}), ("bf16-mixed", {}), ("32-true", {"num_workers": 1})]
)
@pytest.mark.parametrize("persistent", [False, True])
def test_a_fit_after_scoring_equals_a_fit_without(
    precision: str, workers: dict[str, Any], persistent: bool, make_trainer: MakeTrainer
) -> None:
    """Bit for bit: dropout, a globally shuffled loader, metrics and optimizer start from the same state."""
    losses = {}
    for approach in ("projection", "fixed"):
        seed_everything(7, verbose=False)
        module = ForeignModule(hidden_dropout_prob=0.3)
        callback = BiasSelectionCallback(approach=approach, terms=["value"])
        trainer = make_trainer(callbacks=[callback], precision=precision, max_epochs=2)
        trainer.fit(module, token_batches(**workers, persistent_workers=persistent and bool(workers)))
        assert callback.selected == ["value"]
        losses[approach] = [*module.losses, trainer.callback_metrics["acc"].item(), module.running.item()]
    assert len(losses["fixed"]) == 18
    assert losses["projection"] == losses["fixed"]


def test_the_key_bias_of_a_real_checkpoint_ranks_last_in_a_mixed_precision_fit(
    minilm: str, data_dir: Path, make_trainer: MakeTrainer
) -> None:
    """Under bf16 autocast and epsilon 1e-8 the same formula ranks the inert key bias first."""
    data = Glue(minilm, task="sst2", data_dir=data_dir, train_size=128)
    module = LanguageTaskModule(minilm, data.task)
    callback = BiasSelectionCallback("projection", batches=8, patience=0)
    make_trainer(callbacks=[callback], precision="bf16-mixed", max_epochs=0).fit(module, datamodule=data)
    assert callback.scores is not None
    scores = {term: entry.score for term, entry in callback.scores.terms.items()}
    # By the numbers themselves, not by the flag that puts inert terms last.
    assert max(scores, key=lambda term: scores[term]) == "value"
    assert scores["key"] < 1e-3 * scores["query"]


def test_it_leaves_its_files_in_the_log_folder_and_logs_the_scores(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    callback = BiasSelectionCallback()
    trainer = fit(make_trainer, ForeignModule(), callback, logger=CSVLogger(tmp_path))
    folder = Path(str(trainer.log_dir))
    assert {"scores.json", "scores.csv", "scores.png"} <= {path.name for path in folder.iterdir()}
    content = json.loads((folder / "scores.json").read_text())
    assert content["selected"] == callback.selected
    assert content["ranking"][-1] == "key"
    assert "bias_score/value" in (folder / "metrics.csv").read_text()


def test_a_score_file_is_reused_without_scoring(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    first = BiasSelectionCallback()
    trainer = fit(make_trainer, ForeignModule(), first, logger=CSVLogger(tmp_path), max_epochs=0)
    second = BiasSelectionCallback(scores=Path(str(trainer.log_dir)) / "scores.json", terms=["query", "key"])
    fit(make_trainer, ForeignModule(), second, max_epochs=0)
    assert second.selected == ["query"]
    assert second.seconds == 0


@pytest.mark.parametrize("approach", APPROACHES)
def test_the_scores_hold_their_course_over_the_batches(approach: Any, make_trainer: MakeTrainer) -> None:
    callback = BiasSelectionCallback(approach, batches=3, patience=0)
    fit(make_trainer, ForeignModule(), callback, max_epochs=0)
    assert callback.scores is not None
    for entry in callback.scores.terms.values():
        assert len(entry.history) == callback.scores.steps == 3
        assert entry.history[-1] == pytest.approx(entry.score)


@pytest.mark.parametrize("near", [True, False])
def test_a_near_tie_is_warned_of(near: bool, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    other = [0.1, 0.5, 0.5] if near else [0.1, 0.1, 0.1]
    terms = {
        name: {"layers": [history[-1]] * LAYERS, "inert": False, "parameters": 96, "history": history}
        for name, history in (("value", [0.2, 0.4, 0.6]), ("query", other))
    }
    content = {"approach": "projection", "model_type": "bert", "steps": 3, "terms": terms, "selected": []}
    (tmp_path / "scores.json").write_text(json.dumps(content))
    callback = BiasSelectionCallback("projection", terms=["value", "query"], scores=tmp_path / "scores.json")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(make_trainer, ForeignModule(), callback, max_epochs=0)
    said = [str(warning.message) for warning in caught if "other batches may" in str(warning.message)]
    assert callback.selected == ["value"]
    assert len(said) == near
    if near:
        assert "'value' was selected, but its score leads that of 'query' by 0.1 ± 0.72 (two standard err" in said[0]


def test_a_single_batch_does_not_tell_signals_apart(make_trainer: MakeTrainer) -> None:
    """One batch agrees with itself: every term has the signal 1."""
    with pytest.warns(UserWarning, match="leads that of 'value' by 0, after 1 batch: other batches may"):
        fit(make_trainer, ForeignModule(), BiasSelectionCallback(batches=1), max_epochs=0)


@pytest.mark.parametrize(
    ("model_type", "terms", "message"),
    [("opt", ["query", "value"], "scores are of a bert model"), ("bert", ["mlp_in"], "no score for mlp_in")],
)
def test_a_score_file_that_does_not_fit_is_an_error(
    model_type: str, terms: list[str], message: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    trainer = fit(make_trainer, ForeignModule(), BiasSelectionCallback(), logger=CSVLogger(tmp_path), max_epochs=0)
    callback = BiasSelectionCallback(scores=Path(str(trainer.log_dir)) / "scores.json", terms=terms)
    with pytest.raises(ScoringError, match=message):
        fit(make_trainer, ForeignModule(model_type), callback)


def test_single_layers_can_be_chosen(make_trainer: MakeTrainer) -> None:
    module, callback = ForeignModule(), BiasSelectionCallback(per_layer=True, keep=2, head="none")
    fit(make_trainer, module, callback)
    assert callback.selected is not None
    assert len(trainable(module)) == 2
    assert all("." in name for name in callback.selected)


def test_a_budget_bounds_what_is_trained(make_trainer: MakeTrainer) -> None:
    module, callback = ForeignModule("gpt2"), BiasSelectionCallback(budget=130, head="none")
    fit(make_trainer, module, callback)
    assert callback.scores is not None
    assert callback.selected == SelectionRule(4, per_layer=True).select(callback.scores)
    assert sum(module.get_parameter(name).numel() for name in trainable(module)) == 128


class Looking(ForeignModule):
    """A Swin, whose second stage is twice as wide as the first."""

    def __init__(self) -> None:
        super().__init__()
        sizes: dict[str, Any] = {
            "image_size": 32,
            "patch_size": 4,
            "embed_dim": 16,
            "depths": [1, 1],
            "num_heads": [2, 4],
        }
        self.net = AutoModelForImageClassification.from_config(AutoConfig.for_model("swin", window_size=4, **sizes))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        images = batch[0].float().mean() + torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(batch_idx))
        return torch.nn.functional.cross_entropy(self.net(pixel_values=images).logits, torch.tensor([0, 1]))


def test_a_budget_pays_for_wide_layers_by_their_own_size(make_trainer: MakeTrainer) -> None:
    module, callback = Looking(), BiasSelectionCallback("gradient", ["value"], budget=16, head="none", batches=2)
    fit(make_trainer, module, callback)
    assert callback.selected == ["value.0"]
    assert sum(module.get_parameter(name).numel() for name in trainable(module)) == 16


@pytest.mark.parametrize("options", [{"budget": 0}, {"budget": 9, "keep": 2}, {"budget": 9, "approach": "fixed"}])
def test_a_budget_stands_for_itself(options: dict[str, Any]) -> None:
    with pytest.raises(ScoringError, match=r"give a positive number of values, no keep"):
        BiasSelectionCallback(**options)


def test_a_term_can_be_named_even_if_inert(make_trainer: MakeTrainer) -> None:
    module = ForeignModule()
    fit(make_trainer, module, BiasSelectionCallback(approach="fixed", terms=["key"], head="none"))
    assert trainable(module) == [f"net.bert.encoder.layer.{i}.attention.self.key.bias" for i in range(LAYERS)]


def test_the_head_can_be_given_as_patterns(make_trainer: MakeTrainer) -> None:
    module = ForeignModule()
    fit(make_trainer, module, BiasSelectionCallback(approach="fixed", terms=["value.0"], head=["extra.*"]))
    assert trainable(module) == ["net.bert.encoder.layer.0.attention.self.value.bias", "extra.weight", "extra.bias"]


def test_what_the_user_froze_in_the_head_stays_frozen(make_trainer: MakeTrainer) -> None:
    module = ForeignModule()
    module.extra.requires_grad_(False)
    fit(make_trainer, module, BiasSelectionCallback())
    assert not any(name.startswith("extra") for name in trainable(module))


def test_a_bias_free_model_gets_value_biases_by_projection_and_is_told_why(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, callback = ForeignModule("llama", biases=False), BiasSelectionCallback("projection")
    messages: list[str] = []
    monkeypatch.setattr("beft_lightning.callbacks.bias_selection.rank_zero_info", messages.append)
    fit(make_trainer, module, callback)
    assert callback.selected == ["value"]
    assert callback.scores is None
    assert "net.model.layers.0.self_attn.v_proj.bias" in trainable(module)
    assert any("all start at zero" in message for message in messages)


@pytest.mark.parametrize("approach", ["magnitude", "fisher", "gradient_signal"])
def test_a_bias_free_model_can_be_scored_by_the_other_measures(approach: Any, make_trainer: MakeTrainer) -> None:
    module, callback = ForeignModule("llama", biases=False), BiasSelectionCallback(approach=approach)
    fit(make_trainer, module, callback)
    assert callback.scores is not None
    # Rotary positions multiply the keys, so the key bias is live here.
    assert all(entry.score > 0 and not entry.inert for entry in callback.scores.terms.values())


def test_added_and_pretrained_biases_cannot_be_compared_by_projection(make_trainer: MakeTrainer) -> None:
    module = ForeignModule("llama", biases=True)
    with pytest.raises(ScoringError, match="cannot compare mlp_in, which start at zero, with the pretrained value"):
        fit(make_trainer, module, BiasSelectionCallback("projection", terms=["value", "mlp_in"]))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"terms": ["value", "worth"]}, TermError, "no term 'worth' in this model; it can have: query"),
        ({"terms": ["key"]}, TermError, "every candidate .key. is inert in bert"),
        ({"keep": 3}, ScoringError, "cannot keep 3 of the 2 selectable"),
        ({"per_layer": True, "keep": 7}, ScoringError, "cannot keep 7 of the 6 selectable layers"),
        ({"head": ["classifier"]}, TermError, "head pattern 'classifier' matches no parameter"),
        ({"approach": "fixed", "terms": ["value.9"]}, TermError, r"names no layer; layers of 'value': 0\.\.2"),
    ],
)
def test_wrong_options_are_errors_before_training(
    options: dict[str, Any], error: type[Exception], message: str, make_trainer: MakeTrainer
) -> None:
    module = ForeignModule()
    with pytest.raises(error, match=message):
        fit(make_trainer, module, BiasSelectionCallback(**options))
    assert module.losses == []


@pytest.mark.parametrize("options", [{"terms": []}, {"terms": "value"}])
def test_no_candidates_are_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(TermError, match="name at least one candidate"):
        BiasSelectionCallback(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"approach": "projektion"},
            "choose one of: projection, magnitude, fisher, .*, gradient_signal, race, fixed",
        ),
        ({"head": "classifier"}, r"a list of patterns such as \['\*classifier\*'\]"),
        ({"keep": 4}, "keep is 4, and there are 3 candidate terms"),
        ({"keep": 0}, "keep is 0"),
        ({"batches": 0}, r"batches \(0\)"),
        ({"patience": -1}, r"patience \(-1\)"),
        ({"learning_rate": 0.0}, "selection.learning_rate is 0"),
        ({"clip_norm": float("nan")}, r"clip_norm \(nan\)"),
        ({"clip_norm": 0.0}, r"clip_norm \(0.0\)"),
    ],
)
def test_senseless_options_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BeftError, match=message):
        BiasSelectionCallback(**options)


def test_a_failed_fit_leaves_no_replaced_method_behind(make_trainer: MakeTrainer) -> None:
    module, callback = ForeignModule(), BiasSelectionCallback()
    trainer = make_trainer(callbacks=[callback])

    def fail(stage: str) -> None:
        raise RuntimeError("cannot set up")

    module.setup = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="cannot set up"):
        trainer.fit(module, token_batches())
    assert "configure_model" not in module.__dict__
    assert "setup" not in trainer.strategy.__dict__
    assert len(trainable(module)) == len(list(module.parameters()))


def test_a_step_that_takes_the_iterator_is_refused(make_trainer: MakeTrainer) -> None:
    class TakesIterator(ForeignModule):
        def training_step(self, dataloader_iter: Any) -> Any:  # type: ignore[override]
            return None

    with pytest.raises(BeftError, match="takes the dataloader's iterator.*approach='fixed'"):
        fit(make_trainer, TakesIterator(), BiasSelectionCallback())


def test_a_frozen_teacher_beside_the_student_is_left_alone(make_trainer: MakeTrainer) -> None:
    module = ForeignModule()
    module.teacher = make_model("opt").requires_grad_(False)
    fit(make_trainer, module, BiasSelectionCallback(head=["extra.*"]))
    assert not any(name.startswith("teacher") for name in trainable(module))


def test_a_fixed_choice_and_a_score_file_exclude_each_other() -> None:
    with pytest.raises(ScoringError, match="does not look at scores"):
        BiasSelectionCallback(approach="fixed", scores="scores.json")


def test_a_model_without_attention_is_an_error_before_training(make_trainer: MakeTrainer) -> None:
    module = ForeignModule()
    module.net = ResNetForImageClassification(ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1]))
    with pytest.raises(ArchitectureError, match=r"no attention was seen(?s:.*)Say where its biases are, in YAML"):
        fit(make_trainer, module, BiasSelectionCallback())


def test_half_precision_training_is_refused_with_the_remedy(make_trainer: MakeTrainer) -> None:
    with pytest.raises(BeftError, match="'bf16-true' would cast the trained biases.*use 'bf16-mixed'"):
        fit(make_trainer, ForeignModule(), BiasSelectionCallback(), precision="bf16-true")


def test_manual_optimization_is_refused_with_the_remedy(make_trainer: MakeTrainer) -> None:
    module = ForeignModule()
    module.automatic_optimization = False
    with pytest.raises(BeftError, match="optimizes manually.*approach='fixed'"):
        fit(make_trainer, module, BiasSelectionCallback())


def test_other_strategies_are_refused_with_a_list_of_those_that_work() -> None:
    class Other:
        pass

    class Unknown:
        strategy, precision = Other(), "32-true"

    with pytest.raises(BeftError, match="Other cannot train a choice of biases; use one of: DeepSpeedStrategy, FSDP"):
        BiasSelectionCallback().setup(Unknown(), ForeignModule(), "fit")  # type: ignore[arg-type]


def test_state_is_plain_and_a_contradicting_resume_is_refused(make_trainer: MakeTrainer) -> None:
    callback = BiasSelectionCallback(terms=["value", "query"])
    fit(make_trainer, ForeignModule(), callback, max_epochs=0)
    state = callback.state_dict()
    assert json.loads(json.dumps(state)) == state
    restored = BiasSelectionCallback()
    restored.load_state_dict(state)
    assert restored.selected == callback.selected
    assert restored.scores == callback.scores
    with pytest.raises(CheckpointError, match="resume with the same terms"):
        BiasSelectionCallback(approach="fixed", terms=["mlp_in"]).load_state_dict(state)


def test_a_second_fit_selects_anew(make_trainer: MakeTrainer) -> None:
    callback = BiasSelectionCallback(terms=["value"])
    fit(make_trainer, ForeignModule(), callback)
    second = ForeignModule("opt")
    fit(make_trainer, second, callback)
    assert callback.scores is not None
    assert callback.scores.model_type == "opt"
    assert len(trainable(second)) == LAYERS + 3  # score head of OPT, and `extra`
