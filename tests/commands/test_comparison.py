"""Methods of training side by side."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from beft_lightning import LanguageTaskModule
from beft_lightning.callbacks.rate_race import RateRace
from beft_lightning.commands.compare_report import to_markdown
from beft_lightning.commands.comparison import Comparison
from beft_lightning.data import Glue
from beft_lightning.errors import BeftError
from tests.commands.conftest import RATE
from tests.tiny import save_backbone

MakeTrainer = Callable[..., Trainer]


def _with_epochs(make_trainer: Any, epochs: int, callbacks: list[Callback]) -> Trainer:
    trainer: Trainer = make_trainer(callbacks)
    assert trainer.fit_loop is not None
    trainer.fit_loop.max_epochs = epochs
    return trainer


def _first_is_best(self: Any, trainer: Trainer, pl_module: Any) -> None:
    if not trainer.sanity_checking:
        if not self.history:
            self.parameters = {n: p.detach().clone() for n, p in pl_module.named_parameters() if p.requires_grad}
            self.epoch = 1
        self.history.append(-float(len(self.history)))


@pytest.mark.parametrize("tune", ["value", "head", "full", "random_mask", "prefix"])
def test_a_run_is_the_fit_with_the_same_method_and_seed(
    tune: str, make: Any, backbone: str, sst2_dir: str, make_trainer: MakeTrainer
) -> None:
    """Bit for bit, although other methods ran before it in the same process."""
    comparison = make()
    _, run = comparison.run(["query", tune], [3])
    loaded = {name: value.clone() for name, value in comparison.module.state_dict().items()}
    seed_everything(3, verbose=False)
    data = Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=8, dev_size=8, seed=3)
    options = {"seed": 3} if tune in ("random_mask", "prefix") else None
    rate = 1e-5 if tune == "full" else RATE
    module = LanguageTaskModule(backbone, data.task, tune=tune, tune_options=options, learning_rate=rate)
    trainer = make_trainer(max_epochs=2, gradient_clip_val=1.0)
    trainer.fit(module, datamodule=data)
    assert run.history[-1] == float(trainer.callback_metrics["val_accuracy"])
    (tested,) = trainer.test(module, datamodule=data, verbose=False)
    assert run.last == {name.removeprefix("test_"): value for name, value in tested.items()}
    assert run.trained_parameters == sum(p.numel() for p in module.parameters() if p.requires_grad)
    # What the next method starts from is as it was loaded.
    seed_everything(3, verbose=False)
    untouched = LanguageTaskModule(backbone, data.task, tune="head")
    untouched.configure_model()
    assert all(torch.equal(loaded[name], value) for name, value in untouched.state_dict().items())


def test_the_best_epoch_is_chosen_on_examples_that_are_not_reported(make: Any) -> None:
    (run,) = make().run(["all"], [0])
    assert len(run.history) == 2
    assert run.best_epoch == 1 + run.history.index(max(run.history))
    assert set(run.best or {}) == set(run.last)


def test_the_best_epochs_weights_are_the_ones_reported(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a rate that ruins the model after the first epoch, best and last differ, and best is what epoch 1 had."""
    alone = make("one epoch")
    alone.make_trainer = partial(_with_epochs, alone.make_trainer, 1)
    (first,) = alone.run(["all"], [0])
    both = make("one epoch")
    both.folder.path("all", 0).unlink()
    monkeypatch.setattr("beft_lightning.commands.comparison.BestEpoch.on_validation_end", _first_is_best)
    (run,) = both.run(["all"], [0])
    assert run.best_epoch == 1
    assert run.best == first.last


def test_without_a_development_set_only_the_last_epoch_counts(make: Any) -> None:
    (run,) = make(dev_size=0).run(["value"], [0])
    assert run.best is None
    assert run.best_epoch is None
    assert "| - |" in to_markdown([run])


def test_finished_runs_are_not_repeated(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make().run(["value"], [0, 1])
    kept = tmp_path / "out" / "runs" / "value-seed0.json"
    changed = {**json.loads(kept.read_text()), "seconds": 123.0}
    kept.write_text(json.dumps(changed))
    again = make().run(["value", "head"], [0, 1])
    assert [(run.tune, run.seed) for run in again] == [("value", 0), ("head", 0), ("value", 1), ("head", 1)]
    assert again[0].seconds == 123.0
    assert again[2] == first[1]
    loads: list[None] = []
    monkeypatch.setattr(LanguageTaskModule, "configure_model", lambda self: loads.append(None))
    make().run(["head", "value"], [1])
    assert not loads


def test_another_configuration_does_not_mix_with_the_results(make: Any) -> None:
    make("one").run(["head"], [0])
    with pytest.raises(BeftError, match=r"holds results of another configuration.*another --out"):
        make("two")


def test_two_comparisons_that_begin_at_once_do_not_mix(make: Any) -> None:
    first, second = make("one"), make("two")
    first.run(["head"], [0])
    with pytest.raises(BeftError, match=r"holds results of another configuration.*another --out"):
        second.run(["value"], [0])
    assert [run.tune for run in first.results()] == ["head"]


def test_the_configuration_is_recorded_before_the_first_run(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison, recorded = make("one"), []
    monkeypatch.setattr(
        LanguageTaskModule, "on_fit_start", lambda self: recorded.append((tmp_path / "out" / "config.yaml").read_text())
    )
    comparison.run(["head"], [0])
    assert recorded == ["one"]


@pytest.mark.parametrize("content", ["", '{"tune": "head"'])
def test_a_damaged_run_file_is_one_message_before_anything_is_trained(content: str, make: Any) -> None:
    comparison = make()
    comparison.run(["head"], [0])
    comparison.folder.path("head", 0).write_text(content)
    with pytest.raises(BeftError, match=r"head-seed0\.json: not a readable result"):
        make().run(["value", "head"], [0])
    assert not comparison.folder.path("value", 0).exists()


@pytest.mark.parametrize("metrics", [None, {"accuracy": 0.5}], ids=["with a loss", "without a loss"])
def test_a_run_that_loses_its_finite_values_is_marked(
    metrics: dict[str, float] | None, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no metric shows it: the accuracy of a model without finite values is a number."""
    step = LanguageTaskModule.training_step

    def lose(self: LanguageTaskModule, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        return step(self, batch, batch_idx) * (torch.nan if self.tune == "value" else 1.0)

    monkeypatch.setattr(LanguageTaskModule, "training_step", lose)
    if metrics:
        monkeypatch.setattr("beft_lightning.commands.comparison._reported", lambda *arguments: metrics)
    lost, kept = make().run(["value", "head"], [0])
    assert (lost.diverged, kept.diverged) == (True, False)
    assert [run.diverged for run in make().results()] == [True, False]
    assert "| value | diverged |" in to_markdown([lost, kept])


@pytest.mark.parametrize(
    ("tunes", "seeds", "message"),
    [
        ([], [0], "at least one method"),
        (["value"], [], "at least one method"),
        (["value", "value"], [0], "each named once"),
        (["auto"], [0], "name the terms instead of 'auto'"),
        (["zero_shot"], [0], "sst2 is learnt with a new head, so there is no zero-shot result"),
        (["value", "worth"], [0], "'worth' is no method of training .*: all, head, .*terms: query, key"),
        (["value", " value"], [0], "each named once"),
    ],
)
def test_what_cannot_be_compared_is_an_error(tunes: list[str], seeds: list[int], message: str, make: Any) -> None:
    with pytest.raises(BeftError, match=message):
        make().run(tunes, seeds)


def test_a_language_model_is_loaded_once_and_compared_with_itself_untrained(
    decoder: str, sst2_dir: str, make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Glue(decoder, task="sst2", prompt=True, data_dir=sst2_dir, batch_size=8)
    module = LanguageTaskModule(decoder, data.task, learning_rate=RATE)
    loads: list[None] = []
    load = LanguageTaskModule.configure_model

    def counted(self: LanguageTaskModule) -> None:
        if self.model is None:
            loads.append(None)
        load(self)

    monkeypatch.setattr(LanguageTaskModule, "configure_model", counted)
    trainers: Callable[[list[Callback]], Trainer] = lambda callbacks: make_trainer(callbacks=callbacks)  # noqa: E731
    runs = Comparison(module, data, trainers, tmp_path / "out", "").run(["zero_shot", "value", "lora"], [0, 1])
    assert len(loads) == 1
    zero_shot, again = (run for run in runs if run.tune == "zero_shot")
    assert zero_shot.last == again.last
    assert zero_shot.trained_parameters == 0
    assert zero_shot.history == []
    expected = make_trainer().test(LanguageTaskModule(decoder, data.task, tune="value"), datamodule=data, verbose=False)
    assert zero_shot.last["accuracy"] == expected[0]["test_accuracy"]


def test_another_learning_rate_does_not_mix_with_the_results(make: Any) -> None:
    make().run(["value"], [0])
    with pytest.raises(BeftError, match="made with learning rate 0.01, and 0.5 is asked for"):
        make(rates={"value": 0.5}).run(["value"], [0, 1])
    with pytest.raises(BeftError, match="rates name 'query', which is not compared"):
        make(rates={"query": 0.5}).run(["value"], [0])


def test_a_wrong_method_is_found_before_anything_is_trained(make: Any, tmp_path: Path) -> None:
    with pytest.raises(BeftError, match="'worth' is no method of training"):
        make().run(["head", "worth"], [0])
    assert not (tmp_path / "out").exists()


def test_a_model_that_takes_no_prefix_is_found_before_anything_is_trained(
    sst2_dir: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    backbone = save_backbone(tmp_path / "backbone", "distilbert")
    data = Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=8, seed=0)
    comparison = Comparison(LanguageTaskModule(backbone, data.task), data, make_trainer, tmp_path / "out", "one")
    with pytest.raises(BeftError, match="'prefix' cannot train a distilbert"):
        comparison.run(["head", "prefix"], [0])
    assert not (tmp_path / "out").exists()


def test_results_of_several_calls_are_reported_together(make: Any) -> None:
    make().run(["head"], [1])
    comparison = make()
    comparison.run(["value"], [0])
    assert [(run.tune, run.seed) for run in comparison.results()] == [("value", 0), ("head", 1)]


def test_each_method_has_options_of_its_own(make: Any, tmp_path: Path) -> None:
    options = {"random_mask": {"budget": 100}, "low_rank_bias": {"rank": 2}}
    head, mask, low = make(options=options).run(["head", "random_mask", "low_rank_bias"], [0])
    assert mask.trained_parameters == head.trained_parameters + 100
    assert (head.options, mask.options, low.options) == ({}, *options.values())
    (wider,) = make(options={"low_rank_bias": {"rank": 4}}, out="wider").run(["low_rank_bias"], [1])
    assert wider.trained_parameters - head.trained_parameters == 2 * (low.trained_parameters - head.trained_parameters)
    assert 'Options: random_mask {"budget": 100}; low_rank_bias {"rank": 2}.' in to_markdown([head, mask, low])


def test_other_options_do_not_mix_with_the_results(make: Any) -> None:
    first = make(options={"random_mask": {"budget": 100}})
    kept = first.run(["random_mask"], [0])
    assert make(options={"random_mask": {"budget": 100}}).run(["random_mask"], [0]) == kept
    for options in ({"random_mask": {"budget": 200}}, None):
        with pytest.raises(BeftError, match='made with options {"budget": 100}, and {.* is asked for: give another'):
            make(options=options).run(["random_mask"], [0, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora": {"r": 4}}, "options name 'lora', which is not compared; there are: head, random_mask"),
        ({"random_mask": {"size": 4}}, "tune 'random_mask' takes no option 'size'; its tune_options are: budget, seed"),
        ({"head": {"rank": 4}}, "tune 'head' takes no option 'rank'; its tune_options are: none"),
    ],
)
def test_wrong_options_are_found_before_anything_is_trained(
    options: dict[str, Any], message: str, make: Any, tmp_path: Path
) -> None:
    with pytest.raises(BeftError, match=message):
        make(options=options).run(["head", "random_mask"], [0])
    assert not (tmp_path / "out").exists()


def test_data_with_a_seed_of_its_own_keeps_it(
    make: Any, backbone: str, sst2_dir: str, make_trainer: MakeTrainer
) -> None:
    comparison = make(seed=5)
    (run,) = comparison.run(["value"], [3])
    seed_everything(3, verbose=False)
    data = Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=8, dev_size=8, seed=5)
    module = LanguageTaskModule(backbone, data.task, tune="value", learning_rate=RATE)
    trainer = make_trainer(max_epochs=2, gradient_clip_val=1.0)
    trainer.fit(module, datamodule=data)
    (tested,) = trainer.test(module, datamodule=data, verbose=False)
    assert run.last == {name.removeprefix("test_"): value for name, value in tested.items()}
    assert comparison.data.reseeded(3).identity["seed"] == 5
    assert make().data.reseeded(3).identity["seed"] == 3


def test_three_terms_are_ranked_beside_what_would_have_told_their_order(make: Any, tmp_path: Path) -> None:
    comparison = make()
    runs = comparison.run(["query", "key", "value", "head"], [0])
    table = comparison.measure(runs)
    for name in ("projection", "magnitude", "fisher", "gradient", "adam_gain", "gradient_signal", "1/norm(b0)"):
        assert f"\n| {name} |" in table
    measures = json.loads(next((tmp_path / "out" / "runs").glob("measures-*.json")).read_text())
    assert measures["gradient"]["key"] < 1e-4 * measures["gradient"]["value"]
    assert comparison.measure(runs) == table  # from its file
    assert comparison.measure(runs[:2]) == ""


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), 1e38])
def test_a_learning_rate_that_cannot_train_is_an_error_before_anything_is_loaded(rate: float, make: Any) -> None:
    comparison = make(rates={"query": rate})
    with pytest.raises(BeftError, match="the learning rate of query is .*: it must be above 0 and at most 10"):
        comparison.run(["value", "query"], [0])
    assert comparison.module.model is None


def test_an_option_of_the_configuration_counts_even_if_it_is_the_default(
    backbone: str, sst2_dir: str, make_trainer: Any, tmp_path: Path
) -> None:
    """A seed of 0 that was asked for holds for all runs, and files of runs name the options as they were given."""
    data = Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=8)
    module = LanguageTaskModule(backbone, data.task, tune="random_mask", tune_options={"seed": 0, "budget": 5})
    comparison = Comparison(module, data, make_trainer, tmp_path / "out", "tiny")
    assert comparison._method("random_mask").options == {"seed": 0, "budget": 5}


def test_a_race_chooses_the_rate_of_each_run(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a method with a rate of its own; runs with raced and with given rates do not mix."""
    short = partial(RateRace, rates=[1e-4, 2e-2], batches=2, held_out=2, allowance=20)
    monkeypatch.setattr("beft_lightning.commands.comparison.RateRace", short)
    runs = make(rates="auto").run(["value", "full"], [0, 1])
    assert {run.learning_rate for run in runs} <= {1e-4, 2e-2}
    assert all(run.raced for run in runs)
    assert "A short race has chosen the learning rate of each run." in to_markdown(runs)
    assert make(rates="auto").run(["value", "full"], [0, 1]) == runs
    with pytest.raises(BeftError, match="made with raced rates, and a given one is asked for"):
        make().run(["value"], [0])
