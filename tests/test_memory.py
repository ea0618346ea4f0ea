"""Memory is measured from one reset to the next."""

import mmap
from pathlib import Path

import pytest
import torch

from beft_lightning.memory import peak_memory, reset_peak_memory

SIZE = 64 * 2**20
CPU = torch.device("cpu")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_a_peak_is_seen_and_forgotten() -> None:
    reset_peak_memory(CPU)
    before = peak_memory(CPU)
    # Not through an allocator, which may have freed memory left to give.
    with mmap.mmap(-1, SIZE) as held:
        for place in range(0, SIZE, mmap.PAGESIZE):
            held[place] = 1
    peak = peak_memory(CPU)
    reset_peak_memory(CPU)
    after = peak_memory(CPU)
    assert before is not None
    assert peak is not None
    assert after is not None
    assert peak - before > 0.9 * SIZE
    assert peak - after > 0.9 * SIZE
