"""Finding the checkpoint that a run goes on from."""

import re
from pathlib import Path

from beft_lightning.errors import CheckpointError

#: The newest ``last.ckpt``; an error if there is none.
LAST = "last"
#: The newest ``last.ckpt``; a new run if there is none.
LAST_IF_ANY = "last-if-any"
#: The newest checkpoint that a SLURM job was requeued with.
HPC = "hpc"
#: Values of ``--ckpt_path`` that are not paths.
NAMES = (LAST, LAST_IF_ANY, HPC)

# Lightning adds a version where another run's last.ckpt is in the way.
_LAST_FILE = re.compile(r"last(-v\d+)?\.ckpt")
_HPC_FILE = re.compile(r"hpc_ckpt_(\d+)\.ckpt")


def find_checkpoint(name: str, root: str | Path, *, required: bool = True) -> Path | None:
    """Return the checkpoint that one of :data:`NAMES` stands for.

    Args:
        name: Which one.
        root: The run's ``default_root_dir``. ``last`` and ``last-if-any`` look in all folders below it, ``hpc`` in
            the folder itself, where Lightning writes.
        required: Whether there has to be one, also for ``last-if-any``.

    Raises:
        CheckpointError: If there is none.
    """
    root = Path(root).absolute()
    if name == HPC:
        numbered = requeued_checkpoints(root)
        found = numbered[max(numbered)] if numbered else None
    else:
        candidates = [path for path in root.rglob("last*.ckpt") if _LAST_FILE.fullmatch(path.name)]
        found = max(candidates, key=lambda path: path.stat().st_mtime_ns, default=None)
    if found is None and (required or name != LAST_IF_ANY):
        pattern = "hpc_ckpt_N.ckpt in" if name == HPC else "last.ckpt below"
        hint = f", or --ckpt_path {LAST_IF_ANY} for a fit that starts anew where there is none" if name == LAST else ""
        raise CheckpointError(
            f"--ckpt_path {name}: there is no {pattern} {root}. Give the trainer.default_root_dir of the run to go on "
            f"from, or the path of a checkpoint{hint}."
        )
    return found


def requeued_checkpoints(root: str | Path) -> dict[int, Path]:
    """Checkpoints that requeued SLURM jobs have left in a folder, by number."""
    found = {path: _HPC_FILE.fullmatch(path.name) for path in Path(root).glob("hpc_ckpt_*.ckpt")}
    return {int(match[1]): path for path, match in found.items() if match}
