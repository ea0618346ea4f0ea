"""Peak memory of a run."""

from pathlib import Path

import torch


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak, where the system can.

    Args:
        device: Where the model is.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    # Linux forgets the process's high-water mark when told 5.
    watermark = Path("/proc/self/clear_refs")
    if watermark.exists():
        watermark.write_text("5")


def peak_memory(device: torch.device) -> int | None:
    """Return the peak since :func:`reset_peak_memory`, in bytes: of the GPU, or of the whole process on a CPU.

    Args:
        device: Where the model is.

    Returns:
        The bytes, or ``None`` where the system does not tell (a CPU without Linux).
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024
