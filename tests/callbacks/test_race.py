"""A race inside real fits."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch.utils.data import DataLoader, IterableDataset

from beft_lightning import BiasSelectionCallback
from beft_lightning.bias.architecture import Architecture
from beft_lightning.errors import BeftError, ScoringError, TermError
from beft_lightning.scoring.race.scores import RaceScores
from beft_lightning.scoring.race.settings import RaceSettings
from beft_lightning.scoring.race.track import Track
from tests.scoring.test_scoring_pass import Spy
from tests.tiny import ForeignModule, token_batches

MakeTrainer = Callable[..., Trainer]
SHORT = RaceSettings(rates=(1e-3, 1e-2), batches=2, held_out=2, allowance=30)


class WithScheduler(ForeignModule):
    """Groups of two rates under a scheduler that starts low."""

    def configure_optimizers(self) -> Any:
        groups: list[dict[str, Any]] = [
            {"params": list(self.net.parameters())},
            {"params": list(self.extra.parameters()), "lr": 3 * self.learning_rate},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 4))
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


@pytest.mark.parametrize("own_generator", [True, False])
def test_a_race_leaves_no_trace(own_generator: bool, make_trainer: MakeTrainer) -> None:
    torch.manual_seed(5)
    module = ForeignModule(hidden_dropout_prob=0.3)
    module.accuracy.update(torch.tensor([1, 0]), torch.tensor([1, 1]))
    loader = token_batches(generator=torch.Generator().manual_seed(1) if own_generator else None)
    spy = Spy("race", terms=["query", "value"], race=SHORT)
    make_trainer(callbacks=[spy], max_epochs=0).fit(module, loader)
    assert spy.raced is not None
    torch.testing.assert_close(spy.after, spy.before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [ForeignModule, WithScheduler])
def test_a_raced_fit_equals_a_fixed_fit_with_its_term_and_rate(
    kind: type[ForeignModule], make_trainer: MakeTrainer
) -> None:
    """Bit for bit: dropout, a globally shuffled loader, optimizer and scheduler start from the same state."""
    losses, chosen, rate = {}, "", 0.0
    for approach in ("race", "fixed"):
        seed_everything(7, verbose=False)
        module = kind(hidden_dropout_prob=0.3, learning_rate=rate or 4e-4)
        terms = [chosen] if chosen else ["query", "value"]
        callback = BiasSelectionCallback(approach, terms=terms, race=SHORT)
        trainer = make_trainer(callbacks=[callback], max_epochs=2)
        trainer.fit(module, token_batches())
        if callback.raced is not None:
            chosen, rate = callback.raced.result.winner.term, callback.raced.result.winner.rate
        assert callback.selected == [chosen]
        losses[approach] = [*module.losses, trainer.callback_metrics["acc"].item(), module.running.item()]
        losses[approach] += [group["lr"] for group in trainer.optimizers[0].param_groups]
    assert rate in SHORT.rates
    assert losses["race"] == losses["fixed"]


def test_without_rates_the_optimizer_keeps_its_own(make_trainer: MakeTrainer) -> None:
    callback = BiasSelectionCallback("race", race=RaceSettings(rates=(), batches=2, held_out=2, allowance=30))
    trainer = make_trainer(callbacks=[callback])
    trainer.fit(ForeignModule(learning_rate=3e-3), token_batches())
    assert callback.raced is not None
    assert {entrant.rate for entrant in callback.raced.result.entrants} == {3e-3}
    assert trainer.optimizers[0].param_groups[0]["lr"] == 3e-3


def test_an_entrant_is_the_fit_on_its_batches(make_trainer: MakeTrainer) -> None:
    """The race's held-out losses are those of training the term alone with the fit's optimizer and clipping."""
    batches = list(token_batches(examples=24, batch_size=4))
    settings = RaceSettings(rates=(5e-3,), batches=3, held_out=3, allowance=9)
    callback = BiasSelectionCallback("race", terms=["value", "query"], race=settings)
    make_trainer(callbacks=[callback], max_epochs=0, gradient_clip_val=0.1).fit(_plain(), _loader(batches))
    assert callback.raced is not None
    by_term = {entrant.term: entrant for entrant in callback.raced.result.entrants}
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0)).tolist()
    again = torch.randperm(3, generator=torch.Generator().manual_seed(0)).tolist()
    held_out, training = [batches[i] for i in order[:3]], [batches[order[3:][i]] for i in again]
    for term in ("value", "query"):
        module = _plain()
        fixed = BiasSelectionCallback("fixed", terms=[term])
        module.learning_rate = 5e-3
        make_trainer(callbacks=[fixed], gradient_clip_val=0.1).fit(module, _loader(training))
        module.eval()
        with torch.no_grad():
            losses = [
                torch.nn.functional.cross_entropy(module.extra(module.net(input_ids=ids).logits), labels).item()
                for ids, labels in held_out
            ]
        assert by_term[term].laps[0].losses == pytest.approx(losses, abs=1e-6)


def _loader(batches: list[Any]) -> DataLoader[Any]:
    return DataLoader(batches, batch_size=None, shuffle=False)  # type: ignore[arg-type]


def _plain() -> ForeignModule:
    torch.manual_seed(11)
    return ForeignModule(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def test_rounds_are_whole_steps_of_a_fit_that_accumulates(make_trainer: MakeTrainer) -> None:
    callback = BiasSelectionCallback("race", terms=["value", "query"], race=SHORT)
    make_trainer(callbacks=[callback], max_epochs=0, accumulate_grad_batches=4).fit(ForeignModule(), token_batches())
    assert callback.raced is not None
    assert callback.raced.result.winner.batches == 4
    assert callback.raced.result.cost.training_batches == 4 * 4  # two terms at two rates


def test_inert_terms_do_not_run_and_are_listed_last(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    callback = BiasSelectionCallback("race", race=SHORT)
    callback.folder = tmp_path
    make_trainer(callbacks=[callback], max_epochs=0).fit(ForeignModule(), token_batches())
    content = json.loads((tmp_path / "scores.json").read_text())
    assert content["ranking"][-1] == "key"
    assert content["terms"]["key"]["inert"]
    assert "key" not in {entrant["term"] for entrant in content["race"]["entrants"]}
    assert content["selected"] == [content["ranking"][0]]
    cost = content["race"]["cost"]
    assert cost["training_batches"] == sum(entrant["batches"][-1] for entrant in content["race"]["entrants"])
    assert cost["training_batches"] + cost["held_out_batches"] / 2 <= 30 + SHORT.held_out / 2
    assert (tmp_path / "scores.png").stat().st_size > 0
    assert RaceScores.from_dict(content).to_dict() == content


def test_the_result_of_a_race_is_reused(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    callback = BiasSelectionCallback("race", race=SHORT)
    callback.folder = tmp_path
    make_trainer(callbacks=[callback], max_epochs=0).fit(ForeignModule(), token_batches())
    assert callback.raced is not None
    reused = BiasSelectionCallback("race", scores=tmp_path / "scores.json")
    trainer = make_trainer(callbacks=[reused])
    trainer.fit(ForeignModule(), token_batches())
    assert (reused.selected, reused.seconds) == (callback.selected, 0.0)
    assert trainer.optimizers[0].param_groups[0]["lr"] == callback.raced.result.winner.rate
    other = BiasSelectionCallback("race", terms=["value"], scores=tmp_path / "scores.json")
    with pytest.raises(ScoringError, match="the candidates are value: name the same"):
        make_trainer(callbacks=[other]).fit(ForeignModule(), token_batches())


@pytest.mark.parametrize("given", ["module", "settings"])
def test_a_reused_race_keeps_the_rate_that_the_user_gave(given: str, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    callback = BiasSelectionCallback("race", race=SHORT)
    callback.folder = tmp_path
    make_trainer(callbacks=[callback], max_epochs=0).fit(ForeignModule(), token_batches())
    module = ForeignModule(learning_rate=3e-4)
    vars(module)["learning_rate_given"] = given == "module"
    settings = RaceSettings(rates=()) if given == "settings" else SHORT
    reused = BiasSelectionCallback("race", scores=tmp_path / "scores.json", race=settings)
    trainer = make_trainer(callbacks=[reused])
    trainer.fit(module, token_batches())
    assert reused.selected == callback.selected
    assert trainer.optimizers[0].param_groups[0]["lr"] == 3e-4


def test_a_checkpoint_keeps_the_decision_and_the_rate(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    callback = BiasSelectionCallback("race", race=SHORT)
    trainer = make_trainer(callbacks=[callback])
    trainer.fit(ForeignModule(), token_batches())
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    resumed = BiasSelectionCallback("race", race=SHORT)
    later = make_trainer(callbacks=[resumed], max_epochs=2)
    later.fit(ForeignModule(), token_batches(), ckpt_path=tmp_path / "end.ckpt", weights_only=False)
    assert resumed.selected == callback.selected
    assert resumed.seconds == 0.0
    assert callback.raced is not None
    assert later.optimizers[0].param_groups[0]["lr"] == callback.raced.result.winner.rate


def test_a_rate_that_diverges_loses(make_trainer: MakeTrainer) -> None:
    settings = RaceSettings(rates=(1e-2, 1e30), batches=3, held_out=2, allowance=40)
    callback = BiasSelectionCallback("race", terms=["value", "query"], race=settings)
    make_trainer(callbacks=[callback], max_epochs=0).fit(ForeignModule(), token_batches())
    assert callback.raced is not None
    assert callback.raced.result.winner.rate == 1e-2


class Norming(ForeignModule):
    """Normalizes over the batch, counts its steps in an attribute, and follows its loss in a buffer."""

    def __init__(self) -> None:
        torch.manual_seed(11)
        super().__init__(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        self.norm = torch.nn.BatchNorm1d(2)
        self.steps = 0

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        ids, labels = batch
        self.steps += 1
        loss = torch.nn.functional.cross_entropy(self.norm(self.net(input_ids=ids).logits), labels)
        return loss + 0.01 * self.steps


def test_entrants_do_not_see_each_others_buffers_and_counters(make_trainer: MakeTrainer) -> None:
    """An entrant's losses do not depend on who ran before it, nor, in a later round, on who ran in between."""
    laps = {}
    batches = list(token_batches(examples=48))
    for terms in (["query", "value"], ["value", "query"]):
        # Six entrants, of which three go on.
        settings = RaceSettings(rates=(1e-2, 5e-3, 2e-3), batches=2, held_out=2, allowance=28)
        callback = BiasSelectionCallback("race", terms=terms, race=settings)
        make_trainer(callbacks=[callback], max_epochs=0).fit(Norming(), _loader(batches))
        assert callback.raced is not None
        laps[terms[0]] = {(e.term, e.rate): e.laps for e in callback.raced.result.entrants}
    assert max(map(len, laps["query"].values())) == 2
    assert laps["query"] == laps["value"]


def test_a_race_whose_last_entrants_diverge_is_an_error(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was left behind must not win without a word."""
    evaluate = Track.evaluate

    def diverging(self: Track) -> list[float]:
        # The checkpoint, and six entrants of the first round, of which three go on.
        seen.append(None)
        return evaluate(self) if len(seen) <= 7 else [math.inf, math.inf]

    seen: list[None] = []
    monkeypatch.setattr(Track, "evaluate", diverging)
    settings = RaceSettings(rates=(1e-3, 2e-3, 4e-3), batches=2, held_out=2, allowance=40)
    callback = BiasSelectionCallback("race", terms=["value", "query"], race=settings)
    with pytest.raises(ScoringError, match="went on after 2 batches has diverged by 4: give lower race.rates"):
        make_trainer(callbacks=[callback], max_epochs=0).fit(ForeignModule(), token_batches())


class Skipping(ForeignModule):
    """Has no loss for a batch that begins with the id 0."""

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> Any:
        return None if batch[0][0, 0] == 0 else super().training_step(batch, batch_idx)


@pytest.mark.parametrize("held_out", [False, True])
def test_batches_that_the_step_skips(held_out: bool, make_trainer: MakeTrainer) -> None:
    """They are skipped as in a fit, but nothing can be judged by them."""
    settings = RaceSettings(rates=(1e-2,), batches=6, held_out=2, allowance=14)
    batches = [[ids.clone(), labels] for ids, labels in token_batches()]
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0)).tolist()
    batches[order[0 if held_out else 5]][0][0, 0] = 0
    callback = BiasSelectionCallback("race", terms=["value", "query"], race=settings)
    trainer = make_trainer(callbacks=[callback], max_epochs=0)
    if held_out:
        with pytest.raises(ScoringError, match="skips batches that a race holds out"):
            trainer.fit(Skipping(), _loader(batches))
        return
    trainer.fit(Skipping(), _loader(batches))
    assert callback.raced is not None
    assert [entrant.batches for entrant in callback.raced.result.entrants] == [6, 6]


class Streamed(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from token_batches()


def test_a_stream_without_a_length_is_raced(make_trainer: MakeTrainer) -> None:
    settings = RaceSettings(rates=(1e-2,), batches=2, held_out=2)
    callback = BiasSelectionCallback("race", terms=["value", "query"], race=settings)
    make_trainer(callbacks=[callback], max_epochs=1).fit(ForeignModule(), DataLoader(Streamed(), batch_size=None))
    assert callback.raced is not None
    assert callback.raced.result.cost.fit_batches is None


def test_terms_that_are_found_to_be_inert_cannot_race(make_trainer: MakeTrainer) -> None:
    """Where no architecture tells, a probe does."""
    layers = Architecture(layer="encoder.layer.{}", terms={"key": "attention.self.key"})
    callback = BiasSelectionCallback("race", terms=["key"], architecture=layers, race=SHORT)
    with pytest.raises(TermError, match=r"every candidate \(key\) is inert"):
        make_trainer(callbacks=[callback], max_epochs=0).fit(ForeignModule(), token_batches())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"race": RaceSettings(allowance=5)}, "takes 144: raise it"),
        ({"keep": 2}, "chooses one whole term"),
        ({"per_layer": True}, "chooses one whole term"),
    ],
)
def test_impossible_races_are_errors(options: dict[str, Any], message: str, make_trainer: MakeTrainer) -> None:
    with pytest.raises(BeftError, match=message):
        make_trainer(callbacks=[BiasSelectionCallback("race", **options)]).fit(ForeignModule(), token_batches())


def test_too_few_batches_are_an_error(make_trainer: MakeTrainer) -> None:
    with pytest.raises(ScoringError, match="an epoch has 2"):
        make_trainer(callbacks=[BiasSelectionCallback("race", race=SHORT)]).fit(
            ForeignModule(), token_batches(examples=8)
        )
