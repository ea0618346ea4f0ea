"""The study: which jobs are still to do, and their results."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.selection.settings import RATES, SEEDS, Setting
from benchmarks.selection.statistics import best_rate, next_rate


@dataclass(frozen=True)
class Study:
    """The files of a study.

    Args:
        folder: Where each job has its file.
        seeds: Seeds of the reported runs.
        ways: What to train; by default all ways of a setting.
    """

    folder: Path
    seeds: Sequence[int] = SEEDS
    ways: Sequence[str] = ()

    def path(self, job: dict[str, Any]) -> Path:
        """Return the file of a job."""
        if "way" not in job:
            name = f"scores-{job['approach'].replace(' ', '_')}-seed{job['seed']}.json"
            return self.folder / job["setting"] / name
        name = f"{job['way'].replace(',', '+')}-rate{job['rate']:g}-seed{job['seed']}.json"
        return self.folder / job["setting"] / name

    def ways_of(self, setting: Setting) -> Sequence[str]:
        """Return what is trained in a setting."""
        return self.ways or setting.ways

    def waiting(self, setting: Setting) -> list[dict[str, Any]]:
        """Return the jobs of a setting that can be done now: sweeps go on as their results come in.

        Single terms and scores come before combinations: they make a setting complete.
        """
        ways = self.ways_of(setting)
        jobs = [job for way in ways if way in setting.terms for job in self.jobs_of(setting, way)]
        jobs += self.scorings(setting)
        jobs += [job for way in ways if way not in setting.terms for job in self.jobs_of(setting, way)]
        return [job for job in jobs if not self.path(job).exists()]

    def scorings(self, setting: Setting) -> list[dict[str, Any]]:
        """Return the jobs of the approaches."""
        approaches = [{"setting": setting.name, "approach": approach} for approach in setting.approaches]
        return [{**approach, "seed": seed} for approach in approaches for seed in self.seeds]

    def jobs_of(self, setting: Setting, way: str) -> list[dict[str, Any]]:
        """Return the next job of a way's sweep, or once that has ended the jobs of all seeds at its best rate."""
        found = self.sweep(setting.name, way)
        rate = next_rate(found, RATES)
        seeds = self.seeds if rate is None else self.seeds[:1]
        rate = best_rate(found) if rate is None else rate
        return [{"setting": setting.name, "way": way, "rate": rate, "seed": seed} for seed in seeds]

    def done(self, setting: Setting, way: str) -> bool:
        """Return whether all runs of a way have ended."""
        return all(self.path(job).exists() for job in self.jobs_of(setting, way))

    def sweep(self, setting: str, way: str) -> dict[float, float]:
        """Return rate -> accuracy on the development examples at the end, of the rates swept so far."""
        found = {}
        for run in self.runs(setting, way):
            if run["seed"] == self.seeds[0]:
                last = run["dev"][-1]
                found[run["rate"]] = -math.inf if run["diverged"] or last is None else last
        return found

    def reported(self, setting: str, way: str) -> list[dict[str, Any]]:
        """Return the run of each seed at the best rate."""
        rate = best_rate(self.sweep(setting, way))
        return [run for run in self.runs(setting, way) if run["rate"] == rate and run["seed"] in self.seeds]

    def curves(self, setting: str, way: str) -> list[list[float]]:
        """Return the curve on the test examples of each reported run; a value that is not finite counts as 0."""
        return [[value or 0.0 for value in run["test"]] for run in self.reported(setting, way)]

    def runs(self, setting: str, way: str) -> Iterator[dict[str, Any]]:
        """Yield the runs of a way."""
        for path in sorted((self.folder / setting).glob(f"{way.replace(',', '+')}-rate*.json")):
            yield json.loads(path.read_text(encoding="utf-8"))

    def scores(self, setting: Setting) -> list[dict[str, Any]]:
        """Return what each approach has found with each seed, as far as it is done."""
        paths = [path for job in self.scorings(setting) if (path := self.path(job)).exists()]
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]
