"""The check that all objectives of causal language models share."""

import pytest

from beft_lightning.data import PROMPT_TASKS
from beft_lightning.errors import BackboneError
from beft_lightning.tasks.objectives import OBJECTIVES
from beft_lightning.tasks.objectives.language_model import LanguageModelObjective
from tests.tiny import make_model


def test_both_kinds_of_prompts_refuse_an_encoder() -> None:
    encoder, decoder = make_model("bert", causal=True), make_model("opt", causal=True)
    prompted = {kind: cls for kind, cls in OBJECTIVES.items() if issubclass(cls, LanguageModelObjective)}
    assert {task.kind for task in PROMPT_TASKS.values()} <= {*prompted}
    for task in PROMPT_TASKS.values():
        check = prompted[task.kind].check_model
        objective = object.__new__(prompted[task.kind])
        objective.task = task
        check(objective, decoder)
        with pytest.raises(BackboneError, match=f"{task.name} is asked with a prompt.*bert is an encoder"):
            check(objective, encoder)
