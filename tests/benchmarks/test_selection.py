"""The study's numbers, and the order of its jobs."""

import json
import math
from importlib.resources import files
from pathlib import Path

import pytest
from lightning.pytorch.demos.boring_classes import BoringModel

from benchmarks.selection.jobs import ScoreOnly, make_trainer
from benchmarks.selection.report import (
    CHANCE,
    accuracies,
    approaches_table,
    complete,
    curves_table,
    picks,
    record_of,
    rules,
    rules_table,
    write_report,
)
from benchmarks.selection.settings import CANDIDATES, RATES, SETTINGS
from benchmarks.selection.statistics import (
    area,
    best_rate,
    bootstrap,
    next_rate,
    rank_correlation,
    regret,
    steps_to,
)
from benchmarks.selection.study import Study

SETTING = SETTINGS["minilm_sst2"]


def test_a_sweep_ends_inside_its_grid() -> None:
    """From wherever the best rate is, the sweep walks there, and stops with both neighbours tried."""
    for best in range(len(RATES)):
        found: dict[float, float] = {}
        while (rate := next_rate(found, RATES)) is not None:
            assert rate not in found
            found[rate] = -abs(RATES.index(rate) - best)
        assert best_rate(found) == RATES[best]
        assert {RATES[i] for i in (best - 1, best + 1) if 0 <= i < len(RATES)} <= found.keys()


def test_a_sweep_leaves_a_rate_that_diverges() -> None:
    assert next_rate({1e-3: 0.5, 3e-3: 0.5, 1e-2: -math.inf}, RATES) == 3e-4


def test_steps_are_those_to_a_share_of_the_curves_own_best() -> None:
    assert steps_to([0.1, 0.2, 0.19], steps=63) == 126
    assert steps_to([0.1, 0.19, 0.2], steps=63) == 126
    assert steps_to([0.0, 0.0], steps=63) is None


def test_the_area_is_a_mean_over_the_course() -> None:
    assert area([0.7]) == 0.7
    assert area([0.5, 0.5, 0.5]) == 0.5
    assert area([0.5, 0.9, 0.9]) == pytest.approx(0.8)


def test_regret_is_zero_for_the_best() -> None:
    assert regret({"value": 0.7, "query": 0.8}, "query") == 0
    assert regret({"value": 0.7, "query": 0.8}, "value") == pytest.approx(0.1)


def test_rank_correlation_is_spearmans() -> None:
    torchmetrics = pytest.importorskip("torchmetrics.functional")
    torch = pytest.importorskip("torch")
    one, other = [0.3, 0.1, 0.4, 0.15, 0.92], [2.0, 7.0, 1.0, 8.0, 2.5]
    expected = torchmetrics.spearman_corrcoef(torch.tensor(one), torch.tensor(other)).item()
    assert rank_correlation(one, other) == pytest.approx(expected, abs=1e-5)
    assert rank_correlation([1.0, 1.0, 2.0], [1.0, 1.0, 5.0]) == pytest.approx(1.0)
    assert math.isnan(rank_correlation([1.0, 1.0], [1.0, 2.0]))


def test_the_bootstrap_interval_is_that_of_the_mean() -> None:
    """About two standard errors each side: sd 1 over 100 values."""
    values = [(-1.0) ** i for i in range(100)]
    low, high = bootstrap(values)
    assert low == pytest.approx(-0.196, abs=0.03)
    assert high == pytest.approx(0.196, abs=0.03)
    assert bootstrap(values) == (low, high)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path, seeds=(0, 1), ways=("value", "query", "mlp_out", "all"))


def add(study: Study, job: dict[str, object], **result: object) -> None:
    path = study.path(job)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**job, **result}))


def finish(study: Study) -> int:
    """Do all jobs with made-up results: value is best in the end, query at first; return their number."""
    ends = {"value": [0.5, 0.6, 0.9], "query": [0.5, 0.7, 0.8], "mlp_out": [0.5, 0.5, 0.6], "all": [0.5, 0.5, 0.5]}
    count = 0
    while jobs := study.waiting(SETTING):
        for job in jobs:
            count += 1
            if "way" not in job:
                terms = {"value": 3.0, "query": 2.0, "mlp_out": 1.0}
                if job["approach"] == "magnitude":
                    terms["query"] = 4.0
                add(study, job, terms=terms, pick=max(terms, key=lambda term: terms[term]), batches=32, seconds=1.0)
                continue
            curve = [value - abs(math.log10(job["rate"] / 3e-3)) / 10 for value in ends[job["way"]]]
            add(study, job, dev=curve, test=curve, steps=10, diverged=False, seconds=1.0)
    return count


def test_a_way_is_trained_with_the_seeds_once_its_rate_is_found(study: Study) -> None:
    first = study.waiting(SETTING)
    assert {job["seed"] for job in first if "way" in job} == {0}
    scorings = 2 * len(SETTING.approaches)
    assert len(first) == scorings + 4
    assert not complete(study)
    assert finish(study) == scorings + 4 * (3 + 1)
    assert complete(study) == [SETTING]
    assert study.sweep(SETTING.name, "value").keys() == {1e-3, 3e-3, 1e-2}
    assert study.curves(SETTING.name, "value") == [[0.5, 0.6, 0.9]] * 2


def test_a_setting_is_complete_without_its_combinations(study: Study) -> None:
    finish(study)
    study.path({"setting": SETTING.name, "way": "all", "rate": 3e-3, "seed": 1}).unlink()
    assert complete(study) == [SETTING]
    assert not study.done(SETTING, "all")
    path = write_report(study, "python -m benchmarks.selection")
    assert path is not None
    assert "| all" not in path.read_text()
    study.path({"setting": SETTING.name, "way": "query", "rate": 3e-3, "seed": 1}).unlink()
    assert not complete(study)


def test_what_is_there_is_not_done_again(study: Study) -> None:
    job = study.waiting(SETTING)[0]
    add(study, job, dev=[0.5], test=[0.5], steps=10, diverged=False, seconds=1.0)
    assert job not in study.waiting(SETTING)


def test_the_report_is_of_the_results(study: Study) -> None:
    finish(study)
    assert accuracies(study, SETTING, ["value"], 2) == {"value": 0.6}
    found = picks(study, [SETTING]).query("seed == 0").set_index("approach")
    assert found.loc["gradient", "long"] == 0
    assert found.loc["gradient", "short"] == pytest.approx(0.1)
    assert found.loc["gradient", "correlation"] == pytest.approx(1.0)
    assert found.loc["magnitude", "long"] == pytest.approx(0.1)
    assert found.loc["magnitude", "short"] == 0
    among = picks(study, [SETTING], ("query", "mlp_out", "key")).query("seed == 0").set_index("approach")
    assert among.loc["gradient", ["pick", "long"]].tolist() == ["query", pytest.approx(0.1)]
    assert not {"race", "long race"} & {*among.index}, "one among fewer terms would have been another race"
    without = rules(study, [SETTING]).set_index("rule")
    assert without.loc["always mlp_out", ["short", "long", "tied"]].tolist() == pytest.approx([0.2, 0.3, 0])
    assert without.loc["a term at random", ["short", "long"]].tolist() == pytest.approx([0.1, 0.4 / 3])
    assert without.loc["a term at random", "tied"] == pytest.approx(1 / 3)
    path = write_report(study, "python -m benchmarks.selection")
    assert path is not None
    text = path.read_text()
    assert "0.900 [0.900, 0.900]" in text
    assert "+1.00 [+1.00, +1.00]" in text
    for name in ("curves.svg", "regret.svg"):
        assert (study.folder / name).read_text().startswith("<?xml")
    record = json.loads((study.folder / "record.json").read_text())
    assert record["approaches"]["magnitude"] == {"picks": 2, "best": 0, "tied": 0, "regret": 0.1}
    assert "long race" not in record["approaches"], "the record is of what a user can ask for by name"
    assert record["approaches"]["gradient"] == {"picks": 2, "best": 2, "tied": 2, "regret": 0.0}


def test_a_fit_for_scores_alone_trains_nothing_and_keeps_its_length() -> None:
    trainer = make_trainer(3, ScoreOnly())
    trainer.fit(BoringModel())
    assert trainer.global_step == 0
    assert trainer.estimated_stepping_batches == 3 * 64


RUNS = Path(__file__).parents[2] / "benchmarks" / "selection" / "runs"


def test_the_packages_record_and_the_page_are_those_of_the_runs() -> None:
    study = Study(RUNS)
    settings = complete(study)
    found, without = picks(study, settings), rules(study, settings)
    shipped = json.loads(files("beft_lightning.scoring").joinpath("record.json").read_text(encoding="utf-8"))
    again = record_of(found, float(without[without["rule"] == CHANCE]["long"].mean()), shipped["command"])
    assert {**again, "date": shipped["date"]} == shipped
    page = (RUNS.parents[2] / "docs" / "which_bias.md").read_text(encoding="utf-8")
    among = picks(study, settings, CANDIDATES)
    tables = [*(curves_table(study, setting) for setting in settings), rules_table(without)]
    for table in [*tables, approaches_table(found), approaches_table(among)]:
        assert table in page
