"""Facts about DeepSpeed's stages; the two-process tests of this folder have what they do."""

from importlib.util import find_spec

import pytest
from lightning.pytorch.strategies import DeepSpeedStrategy

from beft_lightning.models import QUANTIZED
from beft_lightning.strategies.adaptation import adapt


@pytest.mark.parametrize(("stage", "whole"), [(1, True), (2, True), (3, False)])
def test_the_third_stage_shards_the_weights(stage: int, whole: bool) -> None:
    if find_spec("deepspeed") is None:
        pytest.skip("needs DeepSpeed: pip install deepspeed")
    strategy = adapt(DeepSpeedStrategy(stage=stage))
    assert strategy.recomputes == whole
    assert strategy.quantized == (QUANTIZED if whole else ())
    assert not strategy.restore_checkpoint_after_setup
