"""The tables of the study."""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from beft_lightning.commands.markdown import markdown_table
from beft_lightning.files import write_text_atomically
from benchmarks.selection.pictures import curves_picture, regret_picture
from benchmarks.selection.settings import CANDIDATES, LONG, RACES, SETTINGS, SHORT, TIE, Setting
from benchmarks.selection.statistics import area, bootstrap, rank_correlation, regret, steps_to
from benchmarks.selection.study import Study

#: The rule that any approach has to beat.
CHANCE = "a term at random"


def complete(study: Study) -> list[Setting]:
    """Return the settings of which every term and every approach is done; combinations may be missing."""
    return [
        setting
        for setting in SETTINGS.values()
        if len(study.scores(setting)) == len(study.scorings(setting))
        and all(study.done(setting, way) for way in study.ways_of(setting) if way in setting.terms)
    ]


def curves_table(study: Study, setting: Setting) -> str:
    """Return a row for each way: its rate, its result at both budgets, and the measures of its curve.

    Intervals are bootstrap intervals of the mean over the seeds, which are few.
    """
    rows = []
    for way in filter(partial(study.done, setting), study.ways_of(setting)):
        runs = study.reported(setting.name, way)
        curves = study.curves(setting.name, way)
        mean = [fmean(values) for values in zip(*curves, strict=True)]
        at_end = [curve[-1] for curve in curves]
        low, high = bootstrap(at_end)
        rows.append(
            {
                "trained": way,
                "rate": f"{runs[0]['rate']:g}",
                f"{SHORT} epochs": f"{mean[min(SHORT, len(mean)) - 1]:.3f}",
                f"{setting.epochs} epochs": f"{mean[-1]:.3f} [{low:.3f}, {high:.3f}]",
                "area": f"{area(mean):.3f}",
                "steps to 95 %": steps_to(mean, runs[0]["steps"]) or "-",
            }
        )
    rows.sort(key=lambda row: row[f"{setting.epochs} epochs"], reverse=True)
    return markdown_table(pd.DataFrame(rows))


def picks(study: Study, settings: Sequence[Setting], candidates: Sequence[str] = ()) -> pd.DataFrame:
    """Return a row for each approach, setting and seed of scores: its pick, regrets, correlation and cost.

    A pick is compared with the best of all single terms. One that lies at most ``TIE`` below it counts as tied with it.

    Args:
        study: The study.
        settings: Settings that are complete.
        candidates: What the approaches choose from; by default all single terms. Races are left out then, since one
            among fewer terms would have gone on for longer.
    """
    rows = []
    for setting in settings:
        ways = [way for way in study.ways_of(setting) if way in setting.terms]
        long, short = accuracies(study, setting, ways, setting.epochs), accuracies(study, setting, ways, SHORT)
        for scores in study.scores(setting):
            if candidates and scores["approach"] in RACES:
                continue
            found = {term: score for term, score in scores["terms"].items() if term in (candidates or ways)}
            pick = max(found, key=lambda term: found[term]) if candidates else scores["pick"]
            correlated = len(found) > 2  # Of two, a rank correlation is -1 or 1.
            rows.append(
                {
                    "approach": scores["approach"],
                    "setting": setting.name,
                    "seed": scores["seed"],
                    "pick": pick,
                    "best": regret(long, pick) == 0,
                    "tied": regret(long, pick) <= TIE,
                    "short": regret(short, pick),
                    "long": regret(long, pick),
                    "correlation": rank_correlation([*found.values()], [long[term] for term in found])
                    if correlated
                    else math.nan,
                    "batches": scores["batches"],
                }
            )
    return pd.DataFrame(rows)


def accuracies(study: Study, setting: Setting, ways: Sequence[str], epochs: int) -> dict[str, float]:
    """Return way -> mean test metric over the seeds, after so many epochs."""
    found = {way: study.curves(setting.name, way) for way in ways}
    return {way: fmean(curve[min(epochs, len(curve)) - 1] for curve in curves) for way, curves in found.items()}


def rules(study: Study, settings: Sequence[Setting]) -> pd.DataFrame:
    """Return a row for each rule that needs no scores, and setting: always one term, or any term at random."""
    rows = []
    for setting in settings:
        ways = [way for way in study.ways_of(setting) if way in setting.terms]
        results = {epochs: accuracies(study, setting, ways, epochs) for epochs in (SHORT, setting.epochs)}
        regrets = {way: [regret(found, way) for found in results.values()] for way in ways}
        for way, (short, long) in regrets.items():
            rows.append({"rule": f"always {way}", "best": float(long == 0), "tied": float(long <= TIE)})
            rows[-1] |= {"short": short, "long": long}
        anything = {"best": 1 / len(ways), "tied": fmean(long <= TIE for _, long in regrets.values())}
        means = {"short": fmean(short for short, _ in regrets.values()), "long": fmean(r[1] for r in regrets.values())}
        rows.append({"rule": CHANCE, **anything, **means})
    return pd.DataFrame(rows)


def rules_table(found: pd.DataFrame) -> str:
    """Return a row for each rule, the one with the least regret at the long budget first."""
    rows = [
        {
            "rule": rule,
            "settings": len(group),
            "best": f"{group['best'].mean():.0%}",
            f"within {TIE:g}": f"{group['tied'].mean():.0%}",
            "regret, short": f"{group['short'].mean():.3f}",
            "regret, long": f"{group['long'].mean():.3f}",
        }
        for rule, group in found.groupby("rule", sort=False)
    ]
    return markdown_table(pd.DataFrame(sorted(rows, key=lambda row: str(row["regret, long"]))))


def approaches_table(found: pd.DataFrame) -> str:
    """Return a row for each approach: how often it picked the best term, its regrets, correlation and cost."""
    rows = []
    for approach, group in found.groupby("approach", sort=False):
        correlations = group["correlation"].dropna().tolist()
        low, high = bootstrap(correlations) if correlations else (math.nan, math.nan)
        rows.append(
            {
                "approach": approach,
                "picked the best": f"{int(group['best'].sum())} of {len(group)}",
                f"within {TIE:g}": f"{int(group['tied'].sum())} of {len(group)}",
                "regret, short": f"{group['short'].mean():.3f}",
                "regret, long": f"{group['long'].mean():.3f}",
                "rank correlation": f"{fmean(correlations):+.2f} [{low:+.2f}, {high:+.2f}]" if correlations else "-",
                "batches": f"{group['batches'].mean():.0f}",
            }
        )
    return markdown_table(pd.DataFrame(rows))


def record_of(found: pd.DataFrame, chance: float, command: str) -> dict[str, Any]:
    """Return the record of the approaches and of a term at random, as the package's data file has it."""
    approaches: Mapping[str, Any] = {
        str(approach): {
            "picks": len(group),
            "best": int(group["best"].sum()),
            "tied": int(group["tied"].sum()),
            "regret": round(float(group["long"].mean()), 4),
        }
        for approach, group in found.groupby("approach", sort=False)
        if approach != LONG
    }
    date = datetime.now(UTC).date().isoformat()
    return {"date": date, "command": command, "chance": round(chance, 4), "approaches": approaches}


def write_report(study: Study, command: str) -> Path | None:
    """Write ``report.md``, ``record.json`` and the pictures ``curves`` and ``regret`` into the study's folder.

    Returns:
        The report's path; ``None`` if no setting is complete yet.
    """
    settings = complete(study)
    if not settings:
        return None
    parts = [f"# Study of bias selection\n\n`{command}`, seeds {', '.join(map(str, study.seeds))}.\n"]
    for setting in settings:
        parts.append(f"## {setting.name}\n\n{curves_table(study, setting)}")
    curves_picture(study, settings, study.folder / "curves.png")
    found = picks(study, settings)
    if not found.empty:
        without = rules(study, settings)
        chance = float(without[without["rule"] == CHANCE]["long"].mean())
        regret_picture(found, chance, study.folder / "regret.png")
        parts.append(f"## Approaches\n\n{approaches_table(found)}")
        paper = approaches_table(picks(study, settings, CANDIDATES))
        parts.append(f"## Approaches, with {', '.join(CANDIDATES)} alone\n\n{paper}")
        parts.append(f"## Without scores\n\n{rules_table(without)}")
        record = json.dumps(record_of(found, chance, command), indent=2) + "\n"
        write_text_atomically(study.folder / "record.json", record)
    path = study.folder / "report.md"
    write_text_atomically(path, "\n".join(parts))
    return path
