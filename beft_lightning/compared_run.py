"""The record of one run of a comparison, and its file."""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from beft_lightning.errors import BeftError
from beft_lightning.files import finite_or_none, write_text_atomically


@dataclass(frozen=True)
class Run:
    """Result of training with one method and one seed.

    Args:
        tune: What was trained.
        seed: Seed of the run: new head, dropout, and unless the data has a seed of its own, subset and order.
        learning_rate: The learning rate at the start; 0 if nothing was trained.
        last: Metrics of the reported splits after the last epoch.
        best: The same after the epoch with the best development metric; ``None`` without a development set.
        best_epoch: That epoch, counted from 1.
        history: Value of the main metric in each validation, on the development set if there is one.
        trained_parameters: Number of values trained, head included.
        total_parameters: Number of values of the model.
        seconds: Wall-clock time of the fit, evaluation included.
        peak_memory: Most bytes of GPU memory, or of the process's memory on CPU; ``None`` where it is not known.
        options: The ``tune_options`` that were asked for.
        configuration: Hash of the comparison's configuration; empty in files of the first version.
        diverged: True if a trained value or a metric was not finite after the last epoch.
        raced: True if a race has chosen the learning rate.
    """

    tune: str
    seed: int
    learning_rate: float
    last: dict[str, float]
    best: dict[str, float] | None
    best_epoch: int | None
    history: list[float]
    trained_parameters: int
    total_parameters: int
    seconds: float
    peak_memory: int | None
    options: dict[str, Any] = field(default_factory=dict)
    configuration: str = ""
    diverged: bool = False
    raced: bool = False

    def write(self, path: Path) -> None:
        """Write the record as JSON, with ``null`` for numbers that are not finite.

        Args:
            path: The run's file; missing folders are made.
        """
        content = asdict(self)
        for name in ("last", "best"):
            content[name] = content[name] and {metric: finite_or_none(value) for metric, value in content[name].items()}
        content["history"] = [finite_or_none(value) for value in self.history]
        write_text_atomically(path, json.dumps(content, indent=2, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a run's file, also one of the first version.

        Args:
            path: The run's file.

        Raises:
            BeftError: If the file is empty, is no JSON, or lacks a part of the record.
        """
        content = read_json(path)
        known = {each.name for each in fields(cls)}
        required = {each.name for each in fields(cls) if each.default is each.default_factory is MISSING}
        if missing := sorted(required - content.keys()):
            raise _damaged(path, f"{missing[0]!r} is missing")
        if unknown := sorted(content.keys() - known):
            raise _damaged(path, f"{unknown[0]!r} is no part of a run")
        last, best, history = content["last"], content["best"], content["history"]
        if not isinstance(last, dict) or not last or not isinstance(best, dict | None) or not isinstance(history, list):
            raise _damaged(path, "there are no metrics in it")
        try:
            content["last"] = _numbers(last)
            content["best"] = best and _numbers(best)
            content["history"] = list(_numbers(dict(enumerate(history))).values())
        except (TypeError, ValueError) as error:
            raise _damaged(path, f"a metric is no number ({error})") from error
        # The first version wrote no mark.
        content["diverged"] = content.get("diverged", False) or not all(map(math.isfinite, content["last"].values()))
        return cls(**content)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file in the folder of a comparison.

    Args:
        path: The file.

    Raises:
        BeftError: If the file is empty or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # No JSON, or no UTF-8.
        raise _damaged(path, "it is empty" if not path.stat().st_size else str(error)) from error
    if not isinstance(content, dict):
        raise _damaged(path, f"it holds a {type(content).__name__}, not an object")
    return content


def _damaged(path: Path, reason: str) -> BeftError:
    return BeftError(
        f"{path}: not a readable result ({reason}). Remove this file, and the next comparison makes it again."
    )


def _numbers(values: Mapping[Any, float | None]) -> dict[Any, float]:
    return {name: math.nan if value is None else float(value) for name, value in values.items()}
