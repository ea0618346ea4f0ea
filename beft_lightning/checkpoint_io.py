"""Writing checkpoints so that neither a killed process, a full disk nor a flipped bit goes unnoticed."""

from pathlib import Path
from typing import Any

import torch
from fsspec.core import url_to_fs  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]
from lightning.fabric.plugins import TorchCheckpointIO

from beft_lightning.checkpoint import CHECKSUM_KEY, check_content, content_checksum, read_file
from beft_lightning.files import remove_unfinished, write_atomically


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints beside their target and rename them; check them when they are read.

    Lightning's own TorchCheckpointIO writes into ``TMPDIR``, and where that is another file system than the target's,
    copies the finished file over the last one: a process that is killed in the meantime leaves neither.

    A checkpoint gets a checksum of its values. Remote files (URLs of fsspec) are written and read by TorchCheckpointIO.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint in one step, with its checksum."""
        if "state_dict" in checkpoint:  # Launchers of processes write bare states.
            checkpoint = {**checkpoint, CHECKSUM_KEY: content_checksum(checkpoint)}
        file = _local_path(path)
        if file is None or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
        else:
            write_atomically(file, lambda temporary: _save(checkpoint, temporary))

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint.

        Args:
            path: A local file or a URL.
            map_location: See :func:`torch.load`.
            weights_only: Load tensors and plain types only, unless False.

        Raises:
            CheckpointError: If it is missing, unreadable or damaged.
        """
        plain = weights_only is not False
        file = _local_path(path)
        if file is None:
            return check_content(super().load_checkpoint(path, map_location, plain), path)
        remove_unfinished(file.parent)
        return read_file(file, map_location=map_location, weights_only=plain)


def _local_path(path: Any) -> Path | None:
    file_system, name = url_to_fs(str(path))
    return Path(name) if isinstance(file_system, LocalFileSystem) else None


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:  # errors of writing to a path have no number
        try:
            torch.save(checkpoint, file)
        except RuntimeError as error:
            # After a failed write, torch tries to finish its archive, and that fails as well.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
