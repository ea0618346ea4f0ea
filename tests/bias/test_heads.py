"""The task head."""

import pytest
from torch import nn
from transformers import AutoModelForImageClassification, CLIPConfig, CLIPModel

from beft_lightning.bias.heads import head_parameters, select_head
from beft_lightning.errors import ArchitectureError, TermError
from tests.media import VISION
from tests.tiny import make_model


def test_automatic_selection_leaves_out_what_the_user_froze() -> None:
    model = make_model("bert")
    model.classifier.bias.requires_grad_(False)  # type: ignore[union-attr]
    assert set(head_parameters(model)) - set(select_head(model, "auto")) == {"classifier.bias"}
    assert select_head(model, "none") == []


def test_patterns_match_whole_names() -> None:
    model = make_model("bert")
    assert select_head(model, ["classifier.*"]) == ["classifier.weight", "classifier.bias"]
    with pytest.raises(TermError, match="head pattern 'classifier' matches no parameter"):
        select_head(model, ["classifier"])


def test_a_module_without_a_transformers_model_needs_patterns() -> None:
    module = nn.ModuleDict({"head": nn.Linear(2, 2)})
    with pytest.raises(ArchitectureError, match=r"head=\['head\.\*'\]\), or give head 'none'.*parts: head\."):
        select_head(module, "auto", own_architecture=True)
    assert select_head(module, ["head.*"], own_architecture=True) == ["head.weight", "head.bias"]


def test_a_classifier_without_a_base_model_keeps_the_models_in_it() -> None:
    towers = {"vision_config": VISION["vit"], "text_config": VISION["clip"]["text_config"]}
    classifier = AutoModelForImageClassification.from_config(CLIPConfig(**towers))
    assert head_parameters(classifier) == ["classifier.weight", "classifier.bias"]
    assert head_parameters(CLIPModel(CLIPConfig(**towers))) == []
