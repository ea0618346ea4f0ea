"""A scope restricts what is looked at, and keeps the terms of several towers apart."""

import pytest
from torch import nn
from transformers import AutoConfig, AutoModel

from beft_lightning.bias import Architecture, add_missing_biases, find_bias_terms, freeze_except
from beft_lightning.bias.heads import head_parameters
from beft_lightning.bias.lookup import outermost_models
from beft_lightning.bias.scope import Scope, inert_terms, must_be_watched
from beft_lightning.errors import ArchitectureError, TermError
from tests.bias.test_owners import stack
from tests.tiny import LAYERS, make_model

VALUE = Architecture("blocks.{}", terms={"value": "v"})


def student_and_teacher() -> nn.ModuleDict:
    return nn.ModuleDict({"student": make_model("bert"), "teacher": make_model("gpt2")})


def test_one_name_restricts_and_several_keep_apart() -> None:
    module = student_and_teacher()
    assert freeze_except(module, ["value"], scope="student") == [
        f"student.bert.encoder.layer.{i}.attention.self.value.bias" for i in range(LAYERS)
    ]
    terms = find_bias_terms(module, scope=["student", "teacher"])
    assert set(terms) == {f"{tower}.{term}" for tower in module for term in find_bias_terms(module, scope=tower)}
    assert terms["student.value"] == find_bias_terms(module, scope="student")["value"]
    assert inert_terms(module, scope=["student", "teacher"]) == ("student.key", "teacher.key")


def test_a_term_is_that_of_all_towers_unless_it_names_one() -> None:
    module, scope = student_and_teacher(), ["student", "teacher"]
    both = freeze_except(module, ["value.1"], scope=scope)
    assert both == [
        "student.bert.encoder.layer.1.attention.self.value.bias",
        "teacher.transformer.h.1.attn.c_attn.parametrizations.bias.original2",
    ]
    assert freeze_except(module, ["teacher.value.1", "student.query.0"], scope=scope) == [
        "student.bert.encoder.layer.0.attention.self.query.bias",
        both[1],
    ]
    with pytest.raises(TermError, match=r"no 'teacher.worth' bias; the bias terms it has: student.query.*Term names"):
        freeze_except(module, ["teacher.worth"], scope=scope)
    with pytest.raises(TermError, match=r"'student.value.9' names no layer; layers of 'student.value': 0\.\.2"):
        freeze_except(module, ["student.value.9"], scope=scope)


def test_the_other_tower_gets_no_bias_and_keeps_its_fused_ones() -> None:
    module = nn.ModuleDict({"left": make_model("llama", biases=False), "right": make_model("gpt2")})
    before = list(module["right"].state_dict())
    assert len(add_missing_biases(module, ["value"], scope="left")) == LAYERS
    assert list(module["right"].state_dict()) == before
    assert len(add_missing_biases(module, ["left.query", "right.query"], scope=["left", "right"])) == LAYERS
    assert list(module["right"].state_dict()) != before


def test_a_part_of_a_model_is_counted_from_its_first_layer() -> None:
    model = AutoModel.from_config(AutoConfig.for_model("bart", encoder_layers=2, decoder_layers=3, d_model=32))
    terms = find_bias_terms(nn.ModuleDict({"net": model}), scope="decoder")
    assert list(terms["value"]) == list(terms["cross_value"]) == [0, 1, 2]
    assert terms["value"][0] is model.get_parameter("decoder.layers.0.self_attn.v_proj.bias")
    single = find_bias_terms(model, scope="encoder.layers.1")
    assert single["value"] == {0: model.get_parameter("encoder.layers.1.self_attn.v_proj.bias")}
    assert "cross_value" not in single


def test_a_described_architecture_is_looked_for_in_the_scope_alone() -> None:
    model = nn.ModuleDict({"left": stack(2, v=2), "right": stack(3, v=2)})
    assert list(find_bias_terms(model, VALUE, "right")["value"]) == [0, 1, 2]
    apart = find_bias_terms(model, VALUE, ["right", "left"])
    assert {term: len(layers) for term, layers in apart.items()} == {"right.value": 3, "left.value": 2}
    with pytest.raises(
        ArchitectureError, match=r"'left.blocks.0.v', in which there is no bias term; .* layers 'blocks.{}'"
    ):
        find_bias_terms(model, Architecture("blocks.{}", terms={"value": "w"}), "left.blocks.0.v")


@pytest.mark.parametrize(
    ("scope", "message"),
    [
        ("studnet", r"names 'studnet', and ModuleDict has no such submodule; those with layers in them: student, "),
        ("query", r"'query', which 3 submodules of ModuleDict are called: name one of student.bert.encoder.layer.0"),
        (["student", "encoder"], "'encoder' and 'student', of which one is or holds the other"),
        (["student", "twin"], "of which one is or holds the other"),
        (
            None,
            r"2 transformers models \(student, teacher\): name .* as `scope`, such as scope=\['student', 'teacher'\]",
        ),
    ],
)
def test_a_scope_that_names_nothing_or_too_much(scope: Scope, message: str) -> None:
    module = student_and_teacher()
    module["twin"] = module["student"]
    with pytest.raises(ArchitectureError, match=message):
        find_bias_terms(module, scope=scope)


def test_the_head_is_that_of_the_models_in_scope() -> None:
    module = nn.ModuleDict({"student": make_model("bert"), "teacher": make_model("gpt2"), "scale": nn.Linear(1, 1)})
    own, student = ["scale.weight", "scale.bias"], ["student.classifier.weight", "student.classifier.bias"]
    assert head_parameters(module, "student") == ["student.bert.pooler.dense.bias", *student, *own]
    assert head_parameters(module, ["teacher"]) == ["teacher.score.weight", *own]
    module["teacher"].requires_grad_(False)
    assert not any(name.startswith("teacher") for name in head_parameters(module))


def test_a_part_that_has_a_name_of_its_own_stays_a_part() -> None:
    model = make_model("bert")
    module = nn.ModuleDict({"encoder": model.base_model, "model": model})
    assert outermost_models(module) == {"model": model}
    assert freeze_except(module, ["value.0"]) == ["encoder.encoder.layer.0.attention.self.value.bias"]


def test_what_has_no_transformers_model_is_watched() -> None:
    module = nn.ModuleDict({"net": make_model("bert"), "own": stack(1, v=2)})
    assert must_be_watched(module["own"])
    assert not must_be_watched(module)
    assert [must_be_watched(module, scope) for scope in ("net", "own", ["net", "own"])] == [False, True, True]
