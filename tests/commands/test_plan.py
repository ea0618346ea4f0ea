"""The plan of a fit says what the fit then has."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback, LanguageTaskModule
from beft_lightning.__main__ import main
from beft_lightning.callbacks.rate_race import RateRace
from beft_lightning.checkpoint import read_checkpoint
from beft_lightning.commands.plan import bf16_advice, plan_fit
from beft_lightning.commands.plan_choice import planned_choice
from beft_lightning.data import GLUE_TASKS, PROMPT_TASKS, Glue
from beft_lightning.errors import BackboneError, TermError
from beft_lightning.scoring.race.settings import RaceSettings
from tests.tiny import LAYERS, WIDTH, save_backbone

SST2, SST2_PROMPT, COPA = GLUE_TASKS["sst2"], PROMPT_TASKS["sst2"], PROMPT_TASKS["copa"]


@pytest.mark.parametrize(
    "tune",
    ["auto", "value", "query,mlp_in", "value.1", "all", "head", "random_mask", "random_rows", "vera_bias", "prefix"],
)
def test_a_plan_and_the_fit_agree(
    tune: str, backbone: str, sst2_dir: str, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    selection = [BiasSelectionCallback(batches=2)] if tune == "auto" else []
    plan = plan_fit(LanguageTaskModule(backbone, SST2, tune=tune), next(iter(selection), None))
    trainer = make_trainer(callbacks=[*selection, AdapterCheckpoint()], max_steps=1, limit_val_batches=0)
    module = LanguageTaskModule(backbone, SST2, tune=tune)
    trainer.fit(module, datamodule=Glue(backbone, task="sst2", data_dir=sst2_dir))
    saved = tmp_path / "last.ckpt"
    trainer.save_checkpoint(saved)

    parameters = list(module.parameters())
    assert plan.trained_parameters == sum(p.numel() for p in parameters if p.requires_grad)
    assert plan.total_parameters == sum(p.numel() for p in parameters)
    assert plan.trained_bytes == plan.gradient_bytes == 4 * plan.trained_parameters
    assert plan.frozen_bytes == 4 * (plan.total_parameters - plan.trained_parameters)
    assert plan.reduced_bytes_per_step == plan.gradient_bytes
    state = read_checkpoint(saved)["optimizer_states"][0]["state"].values()
    assert plan.optimizer_bytes == sum(v.numel() * v.element_size() for values in state for v in values.values())
    assert plan.checkpoint_bytes == pytest.approx(saved.stat().st_size, rel=0.05, abs=2_000)


def test_the_command_plans_and_leaves_nothing(argv: Any, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv("plan", "--json")) == 0
    plan = json.loads(capsys.readouterr().out)
    assert not out.parent.exists()
    assert main(argv("fit")) == 0
    summary = json.loads((out / "version_0" / "summary.json").read_text())
    assert plan["trained_parameters"] == summary["trained_parameters"]
    assert plan["trained_share"] == summary["trained_parameters"] / summary["total_parameters"]


def test_half_precision_counts_as_such_and_what_is_trained_as_fp32(backbone: str) -> None:
    module = LanguageTaskModule(backbone, SST2, tune="value", dtype="bfloat16")
    plan = plan_fit(module)
    real = LanguageTaskModule(backbone, SST2, tune="value", dtype="bfloat16")
    real.configure_model()
    frozen = [parameter for parameter in real.parameters() if not parameter.requires_grad]
    assert plan.frozen_bytes == sum(parameter.numel() * parameter.element_size() for parameter in frozen)
    assert plan.frozen_bytes < 4 * (plan.total_parameters - plan.trained_parameters)
    assert plan.trained_bytes == 4 * plan.trained_parameters


@pytest.mark.parametrize("model_type", ["gptj", "llama", "opt"])
def test_shared_and_added_parameters_are_counted_as_in_the_fit(model_type: str, tmp_path: Path) -> None:
    folder = save_backbone(tmp_path, model_type, causal=True, **({"biases": False} if model_type == "llama" else {}))
    plan = plan_fit(LanguageTaskModule(folder, COPA, tune="value,mlp_in"))
    real = LanguageTaskModule(folder, COPA, tune="value,mlp_in")
    real.configure_model()
    assert plan.total_parameters == sum(parameter.numel() for parameter in real.parameters())
    assert plan.trained_parameters == sum(p.numel() for p in real.parameters() if p.requires_grad)


def test_only_the_configuration_is_needed(backbone: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((Path(backbone) / "config.json").read_bytes())
    module = LanguageTaskModule(str(tmp_path), SST2, tune="value")
    plan = plan_fit(module)
    assert plan == plan_fit(LanguageTaskModule(backbone, SST2, tune="value"))
    assert all(parameter.is_meta for parameter in module.parameters())


@pytest.mark.parametrize(
    ("selection", "tune", "biases"),
    [
        ({"terms": ["key", "mlp_in"]}, "1 of key, mlp_in", 48 * LAYERS),
        ({"terms": ["query", "key", "value"], "keep": 2}, "2 of query, key, value", 2 * WIDTH * LAYERS),
        ({"terms": ["value", "mlp_in"], "keep": 4, "per_layer": True}, "4 layers of value, mlp_in", 3 * 48 + WIDTH),
        ({"terms": ["value", "query"], "budget": 100}, "at most 100 values of value, query", 3 * WIDTH),
        ({"terms": ["value.1"], "approach": "fixed"}, "value.1", WIDTH),
    ],
)
def test_where_scores_decide_the_largest_choice_is_planned(
    selection: dict[str, Any], tune: str, biases: int, backbone: str
) -> None:
    plan = plan_fit(LanguageTaskModule(backbone, SST2), BiasSelectionCallback(**selection))
    head = WIDTH + 2 * WIDTH + 2
    assert (plan.tune, plan.trained_parameters) == (tune, biases + head)


def test_biases_that_start_at_zero_are_not_chosen_between_by_projection(tmp_path: Path) -> None:
    folder = save_backbone(tmp_path, "llama", causal=True, biases=False)
    plan = plan_fit(LanguageTaskModule(folder, COPA), BiasSelectionCallback("projection"))
    assert (plan.tune, plan.trained_parameters) == ("value", LAYERS * WIDTH // 2)


def test_another_optimizer_has_another_state(backbone: str) -> None:
    from torch.optim import SGD

    plan = plan_fit(LanguageTaskModule(backbone, SST2, tune="value", optimizer=lambda p: SGD(p, lr=0.1)))
    assert plan.optimizer_bytes == 0


def test_a_table_is_printed_for_people(
    backbone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["beft_lightning"])
    data = ["--data", "beft_lightning.data.Glue", "--data.task", "sst2"]
    assert main(["plan", "--model.backbone", backbone, "--model.tune", "value", *data]) == 0
    printed = capsys.readouterr().out
    assert "194 of" in printed
    assert "776 bytes" in printed


def test_what_cannot_be_planned_is_an_error(backbone: str) -> None:
    with pytest.raises(BackboneError, match="cannot load the model"):
        plan_fit(LanguageTaskModule("/nowhere", SST2, tune="value"))
    with pytest.raises(TermError, match="'worth' is no method of training"):
        plan_fit(LanguageTaskModule(backbone, SST2, tune="worth"))
    with pytest.raises(TermError, match="no term 'worth'"):
        plan_fit(LanguageTaskModule(backbone, SST2), BiasSelectionCallback(terms=["worth"]))


@pytest.mark.parametrize("model_type", ["opt", "llama"])
def test_tied_output_embeddings_are_in_no_checkpoint(model_type: str, argv: Any, out: Path, tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path / "large", model_type, causal=True, vocab_size=5000, tie_word_embeddings=True)
    assert main(argv("fit", "--model.backbone", backbone, "--data.prompt", "true", "--model.tune", "value")) == 0
    plan = plan_fit(LanguageTaskModule(backbone, SST2_PROMPT, tune="value"))
    size = (out / "version_0" / "checkpoints" / "last.ckpt").stat().st_size
    assert plan.checkpoint_bytes == pytest.approx(size, rel=0.05, abs=2_000)
    assert plan.checkpoint_bytes < 5000 * WIDTH * 4


def test_times_are_those_of_the_fits_own_batches(
    backbone: str, sst2_dir: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["beft_lightning"])
    data = ["--data", "beft_lightning.data.Glue", "--data.task", "sst2", "--data.data_dir", sst2_dir]
    cache = ["--trainer.callbacks+=beft_lightning.callbacks.FrozenLayerCache", "--trainer.callbacks.below=eval"]
    race = ["--selection.approach", "race", "--selection.race.batches", "1", "--selection.race.held_out", "2"]
    fit = ["--trainer.max_epochs", "3", "--data.batch_size", "4", "--trainer.limit_train_batches", "3"]
    assert main(["plan", "--model.backbone", backbone, *data, *race, *fit, *cache, "--json", "--seconds"]) == 0
    plan = json.loads(capsys.readouterr().out)
    times = plan["seconds"]
    assert (times["epoch_batches"], times["fit_batches"]) == (3, 9)
    assert plan["cache_bytes"] > 0
    assert plan["cache_bytes"] % (4 * WIDTH + 8) == 0
    # Two live terms at three rates: the key bias of BERT is inert. The first round is paid in any case.
    assert plan["choice_batches"] == times["choice_batches"] == 6 * (1 + 1) + 1
    assert times["choice"] == pytest.approx(6 * times["step"] + 14 * times["held_out"])
    validation = times["epoch"] - 3 * times["step"]
    assert validation > 0
    assert times["fit"] == pytest.approx(times["choice"] + 9 * times["step"] + 3 * validation)


@pytest.mark.parametrize(
    ("tune", "selection", "batches"),
    [
        ("auto", {"batches": 5}, 5),
        ("auto", {"approach": "fixed"}, 0),
        ("value", {}, 0),
        # 6 entrants on 16 batches, 3 up to 32, 2 up to 64, 128 and 256, each lap on 16 held-out ones that count half.
        ("auto", {"approach": "race"}, 6 * 24 + 3 * 24 + 2 * (40 + 72 + 136) + 8),
        ("auto", {"approach": "race", "race": RaceSettings(allowance=150)}, 6 * 24 + 8),
    ],
)
def test_the_choice_is_planned_in_batches(tune: str, selection: dict[str, Any], batches: float, backbone: str) -> None:
    module = LanguageTaskModule(backbone, SST2, tune=tune)
    plan = plan_fit(module, BiasSelectionCallback(**selection))
    assert plan.choice_batches == batches
    # Two rates for 16 batches, each judged on 16 that count half, and so is the checkpoint.
    assert planned_choice(module, BiasSelectionCallback(**selection), RateRace([1e-3, 1e-2], allowance=60)).batches == (
        batches + 2 * 24 + 8
    )


def test_a_race_without_a_live_candidate_has_no_plan(backbone: str) -> None:
    selection = BiasSelectionCallback("race", terms=["key"])
    with pytest.raises(TermError, match=r"every candidate \(key\) is inert in bert"):
        plan_fit(LanguageTaskModule(backbone, SST2), selection)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trainer.max_epochs", "-1"], "no set length"),
        (["--trainer.accelerator", "cpu", "--trainer.devices", "2"], "takes the time of one process"),
    ],
)
def test_a_fit_without_a_length_or_with_several_processes_has_no_time(
    options: list[str],
    message: str,
    backbone: str,
    sst2_dir: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["beft_lightning"])
    data = ["--data", "beft_lightning.data.Glue", "--data.task", "sst2", "--data.data_dir", sst2_dir]
    fit = ["--model.backbone", backbone, "--model.tune", "value", *options]
    assert main(["plan", *data, *fit, "--seconds"]) == 2
    assert message in capsys.readouterr().err


def test_bf16_is_recommended_where_the_processor_has_it() -> None:
    new = {"avx512_bf16": True, "amx_bf16": False, "avx2": True}
    old = {"avx512_bf16": False, "avx2": True}
    assert "bf16-mixed" in str(bf16_advice(new, "cpu", "32-true"))
    assert bf16_advice(new, "cpu", "bf16-mixed") is None
    assert bf16_advice(new, "cuda", "32-true") is None
    assert bf16_advice(old, "cpu", "32-true") is None
