"""A run that fails before it has a model leaves nothing behind."""

from contextlib import suppress
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger


class FailedStart(Callback):
    """Remove the new folders of a run whose backbone or data could not be loaded.

    Args:
        trainer: The trainer of the run, before its logger has made a folder.
        config_name: Name of the file that the run writes before there is a model.
    """

    def __init__(self, trainer: Trainer, config_name: str = "config.yaml") -> None:
        logger = trainer.logger
        # Only the first process writes; other loggers write into their folders at once, or have none.
        self._new: list[Path] = []
        if isinstance(logger, CSVLogger) and trainer.is_global_zero:
            folder = Path(logger.log_dir).absolute()
            self._new = [path for path in (folder, *folder.parents) if not path.exists()]
        self._config_name = config_name

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove them if there is no model; what another run has put into one stays."""
        if getattr(pl_module, "model", self) is not None or not self._new:
            return
        with suppress(OSError):  # A folder that holds something is not removed.
            (self._new[0] / self._config_name).unlink(missing_ok=True)
            for folder in self._new:
                folder.rmdir()
