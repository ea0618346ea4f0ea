"""The configuration of a run of the command line, in the run's folder."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from beft_lightning.callbacks.run_folder import own_path, run_folder


class RunConfig(SaveConfigCallback):
    """Write ``config.yaml`` into the run's folder, beside one that is there already."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write it once."""
        if self.already_saved:
            return
        folder = run_folder(trainer)  # Asked on every rank: it is broadcast.
        if folder is not None and trainer.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
            path = own_path(trainer, folder, self.config_filename)
            self.parser.save(self.config, path, skip_none=False, overwrite=True, multifile=self.multifile)
        self.already_saved = True
