"""Tables of one's own: the DataModule, the files it reads, and the kinds of task."""

from beft_lightning.data.table.datamodule import Table

__all__ = ["Table"]
