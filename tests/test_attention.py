"""The implementation of attention as an option."""

from pathlib import Path

import pytest
import torch

from beft_lightning import LanguageTaskModule
from beft_lightning.data import GLUE_TASKS
from beft_lightning.errors import BackboneError
from tests.tiny import logits


@pytest.mark.parametrize("random_init", [False, True])
def test_the_chosen_implementation_is_used_and_computes_the_same(backbone: str, random_init: bool) -> None:
    found = {}
    for name in ("eager", "sdpa"):
        torch.manual_seed(0)
        module = LanguageTaskModule(
            backbone, GLUE_TASKS["sst2"], tune="value", random_init=random_init, attn_implementation=name
        )
        module.configure_model()
        assert module.model is not None
        assert module.model.config._attn_implementation == name
        found[name] = logits(module.model)
    torch.testing.assert_close(found["eager"], found["sdpa"])


@pytest.mark.parametrize("name", ["flash_attention_2", "fastest"])
def test_an_unavailable_one_is_an_error_with_those_that_are(backbone: str, name: str) -> None:
    module = LanguageTaskModule(backbone, GLUE_TASKS["sst2"], tune="value", attn_implementation=name)
    with pytest.raises(BackboneError, match=f"attn_implementation '{name}' is not available .* Available: sdpa, eager"):
        module.configure_model()


def test_the_command_line_knows_the_option(help_of_fit: str, tmp_path: Path) -> None:
    assert "--model.attn_implementation" in help_of_fit
