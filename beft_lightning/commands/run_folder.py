"""The folder of a comparison: its configuration, and a file for each run."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from beft_lightning.compared_run import Run
from beft_lightning.errors import BeftError
from beft_lightning.files import write_text_atomically


def read_runs(folder: Path, read: Callable[[Path], Run] = Run.read, method: str = "*") -> list[Run]:
    """Read the runs of a comparison: by seed, and those of a seed in the order in which they were made.

    Args:
        folder: The folder of the comparison.
        read: Reads a run's file.
        method: How the names of the files begin.

    Raises:
        BeftError: If a file is damaged.
    """
    paths = [path for path in folder.glob(f"runs/{method}-seed*.json") if not path.name.startswith("measures-")]
    return sorted(map(read, sorted(paths, key=lambda path: path.stat().st_mtime)), key=lambda run: run.seed)


class RunFolder:
    """The runs of one configuration, possibly written by several processes at once.

    Args:
        folder: The folder; :meth:`claim` makes it.
        configuration: The configuration of the comparison as text.

    Raises:
        BeftError: If the folder belongs to another configuration.
    """

    def __init__(self, folder: Path, configuration: str) -> None:
        self.folder = folder
        self.configuration = configuration
        #: Hash of the configuration, which each run's file carries.
        self.digest = hashlib.sha256(configuration.encode()).hexdigest()
        self._record = folder / "config.yaml"
        self._runs = folder / "runs"
        self._check_configuration()

    def path(self, tune: str, seed: int) -> Path:
        """Return the path of a run's file.

        Args:
            tune: What the run trains.
            seed: Seed of the run.
        """
        return self._runs / f"{tune.replace(',', '+')}-seed{seed}.json"

    def measures_path(self, terms: list[str], seed: int) -> Path:
        """Return the path of the file with the measures of some terms.

        Args:
            terms: Names of the terms.
            seed: Seed of the batches that were measured on.
        """
        return self._runs / f"measures-seed{seed}-{'+'.join(terms)}.json"

    def claim(self) -> None:
        """Record the configuration, before the first run is trained.

        Raises:
            BeftError: If another comparison has recorded its configuration in the meantime.
        """
        with self._lock():
            self._check_configuration()
            write_text_atomically(self._record, self.configuration)

    def add(self, run: Run) -> None:
        """Write a run's file.

        Args:
            run: The run.

        Raises:
            BeftError: If the folder has runs of the same method with another learning rate or other options. Nothing
                is written then.
        """
        with self._lock():
            rate = run.learning_rate if run.trained_parameters and not run.raced else None
            self.check_settings(run.tune, rate, run.options, raced=run.raced)
            run.write(self.path(run.tune, run.seed))

    def read(self, tune: str, seed: int) -> Run | None:
        """Read a run, ``None`` if it has not been made yet.

        Args:
            tune: What the run trains.
            seed: Seed of the run.

        Raises:
            BeftError: If the file is damaged or belongs to another configuration.
        """
        path = self.path(tune, seed)
        return self._read(path) if path.exists() else None

    def runs(self, tune: str | None = None) -> list[Run]:
        """Read all runs: by seed, and those of a seed in the order in which they were made.

        Args:
            tune: Read the runs of this method only.

        Raises:
            BeftError: If a file is damaged or belongs to another configuration.
        """
        return read_runs(self.folder, self._read, "*" if tune is None else tune.replace(",", "+"))

    def check_settings(
        self, tune: str, learning_rate: float | None, options: dict[str, object], *, raced: bool = False
    ) -> None:
        """Check that the runs of a method all have the same learning rate and options.

        Args:
            tune: What the runs train.
            learning_rate: The learning rate asked for; ``None`` if it does not matter.
            options: The ``tune_options`` asked for.
            raced: Whether a race chooses the learning rate of each run.

        Raises:
            BeftError: If a run of the method was made with others.
        """
        for run in self.runs(tune):
            made, asked = f"options {json.dumps(run.options)}", json.dumps(options)
            if run.trained_parameters and run.raced != raced:
                made, asked = ("raced rates", "a given one") if run.raced else ("a given rate", "a raced one")
            elif run.trained_parameters and learning_rate is not None and run.learning_rate != learning_rate:
                made, asked = f"learning rate {run.learning_rate:g}", f"{learning_rate:g}"
            elif run.options == options:
                continue
            raise BeftError(
                f"{self.path(tune, run.seed)}: made with {made}, and {asked} is asked for: give another --out, or "
                "remove that file to make it again."
            )

    def _read(self, path: Path) -> Run:
        run = Run.read(path)
        if run.configuration not in ("", self.digest):
            raise BeftError(
                f"{path}: made with another configuration than the one in {self._record}: give another --out, or "
                "remove that file to make it again."
            )
        return run

    def _check_configuration(self) -> None:
        if not self._record.exists() or self._record.read_text(encoding="utf-8") == self.configuration:
            return
        if any(self._runs.glob("*-seed*.json")):
            raise BeftError(
                f"{self.folder} holds results of another configuration, in {self._record.name}: give another --out, "
                "or go back to that configuration to add to its results."
            )
        raise BeftError(
            f"{self.folder} belongs to a comparison with another configuration, in {self._record.name}, which has no "
            "results yet: give another --out, or remove that file if the comparison does not run any more."
        )

    def _lock(self) -> FileLock:
        self._runs.mkdir(parents=True, exist_ok=True)
        return FileLock(self._runs / ".lock")
