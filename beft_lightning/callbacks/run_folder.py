"""The folder of a run, and the files that it may write there."""

from itertools import chain, count
from pathlib import Path
from weakref import WeakKeyDictionary

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

_WRITTEN: WeakKeyDictionary[Trainer, set[Path]] = WeakKeyDictionary()
_NUMBERED: WeakKeyDictionary[Logger, Path] = WeakKeyDictionary()


def run_folder(trainer: Trainer) -> Path | None:
    """Return the folder that a run leaves its files in; all processes call this together.

    It is the first logger's folder of this run: ``log_dir`` of CSVLogger and TensorBoardLogger, and
    SAVE_DIR/NAME/VERSION of others, where Lightning's checkpoints are, too. Without a logger, it is
    ``default_root_dir`` if one was given, and nothing otherwise: the working directory is not a run's.
    """
    logger = trainer.logger
    root = Path(trainer.default_root_dir).absolute()
    folder: Path | None
    if logger is None:
        folder = None if root == Path.cwd() else root
    elif isinstance(logger, CSVLogger | TensorBoardLogger):
        folder = Path(logger.log_dir)
    elif logger.version in (None, ""):
        folder = _NUMBERED.get(logger) or _NUMBERED.setdefault(logger, _next_version(_of_all_runs(logger, root)))
    else:
        version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
        folder = _of_all_runs(logger, root) / version
    return trainer.strategy.broadcast(folder)


def _of_all_runs(logger: Logger, root: Path) -> Path:
    """Return the folder of all runs of a logger."""
    return Path(logger.save_dir or root) / (logger.name or "runs")


def _next_version(folder: Path) -> Path:
    return next(path for number in count() if not (path := folder / f"version_{number}").exists())


def own_path(trainer: Trainer, folder: Path, name: str) -> Path:
    """Return the path under which a run may write a file: a new one, or one that it has written itself.

    Args:
        trainer: The trainer of the run.
        folder: The folder.
        name: The file's name; where another run or the user has such a file, ``-v1`` or more is added.
    """
    written = _WRITTEN.setdefault(trainer, set())
    plain = folder / name
    candidates = chain([plain], (plain.with_stem(f"{plain.stem}-v{number}") for number in count(1)))
    path = next(path for path in candidates if path in written or not path.exists())
    written.add(path)
    return path
