"""Memory is measured from one reset to the next."""

from pathlib import Path

import pytest
import torch

from beft_lightning.memory import peak_memory, reset_peak_memory

CPU = torch.device("cpu")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_a_peak_is_seen_and_forgotten() -> None:
    reset_peak_memory(CPU)
    before = peak_memory(CPU)
    held = torch.ones(64 * 2**20 // 4)
    assert held.sum() > 0
    del held
    peak = peak_memory(CPU)
    reset_peak_memory(CPU)
    after = peak_memory(CPU)
    assert before is not None
    assert peak is not None
    assert after is not None
    assert peak - before > 60 * 2**20
    assert peak - after > 60 * 2**20
