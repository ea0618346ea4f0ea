"""What a run has left behind that was ended: which checkpoint is the newest, what is damaged, and what differs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from beft_lightning.checkpoint import checkpoint_file, read_checkpoint


def newest(out: Path) -> Path | None:
    """The newest last.ckpt, which is a folder under DeepSpeed."""
    return max(out.rglob("last.ckpt"), key=lambda path: checkpoint_file(path).stat().st_mtime_ns, default=None)


def damaged(out: Path) -> list[str]:
    """Files that cannot be read, but for temporary ones."""
    bad = []
    for path in (path for path in out.rglob("*") if path.is_file() and not path.name.startswith(".")):
        try:
            if path.suffix == ".ckpt":
                read_checkpoint(path)
            elif path.suffix == ".json":
                json.loads(path.read_text())
        except Exception:
            bad.append(str(path.relative_to(out)))
    return bad


def different(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Parts of two checkpoints that are not the same bit by bit."""
    parts = ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers", "beft_rng")
    return [part for part in parts if not same_bits(one[part], other[part])]


def same_bits(one: Any, other: Any) -> bool:
    """Whether two parts of checkpoints are equal, tensors bit by bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_bits(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same_bits, one, other))
    return bool(one == other)
