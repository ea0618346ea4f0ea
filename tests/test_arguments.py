"""A command line in the form that the parser takes."""

import pytest

from beft_lightning.arguments import for_parser, with_adapter
from beft_lightning.errors import BeftError


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        ("fit --data Glue --data.task sst2", "fit --data Glue --data.task sst2"),
        ("fit --data.task sst2 --a b --data Glue --c", "fit --data Glue --data.task sst2 --a b --c"),
        ("fit --a --data.task=sst2 --data=Glue", "fit --a --data=Glue --data.task=sst2"),
        ("fit --config c --data.task sst2", "fit --config c --data.task sst2"),
        ("fit --data.task sst2 --data", "fit --data --data.task sst2"),
        ("plan --json --data.task sst2 --data Glue", "plan --json=true --data Glue --data.task sst2"),
        ("plan --seconds --json", "plan --seconds=true --json=true"),
        ("compare --tune value query --seeds 0 1 --a b", 'compare --a b --tune=["value",_"query"] --seeds=[0,1]'),
        ("fit --model.optimizer SGD --a b", "fit --model.optimizer torch.optim.SGD --a b"),
        ("fit --model.optimizer=Adam --a SGD", "fit --model.optimizer=torch.optim.Adam --a SGD"),
        ("fit --model.optimizer my.SGD --a", "fit --model.optimizer my.SGD --a"),
        ("fit --model.optimizer Mine --a", "fit --model.optimizer Mine --a"),
        (
            "fit --model.lr_scheduler StepLR --model.lr_scheduler ReduceLROnPlateau",
            "fit --model.lr#scheduler torch.optim.lr#scheduler.StepLR "
            "--model.lr#scheduler lightning.pytorch.cli.ReduceLROnPlateau",
        ),
        ('compare --tune ["value","query"] --seeds [1,2]', 'compare --tune ["value","query"] --seeds [1,2]'),
    ],
)
def test_lists_switches_names_of_classes_and_the_order_of_the_data(given: str, parsed: str) -> None:
    assert for_parser(given.split()) == [word.replace("_", " ").replace("#", "_") for word in parsed.split()]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("validate --config c --adapter a", "validate --config c --ckpt_path a"),
        ("predict --adapter=a --input i", "predict --ckpt_path=a --input i"),
        ("export --adapter a --format hf", "export --checkpoint a --format hf"),
        ("serve --adapters a", "serve --adapters a"),
        ("fit --adapter a", "fit --adapter a"),
    ],
)
def test_an_adapter_is_given_by_either_name(given: str, meant: str) -> None:
    assert with_adapter(given.split()) == meant.split()


def test_an_adapter_given_by_both_names_is_refused() -> None:
    for command in ("test --adapter a --ckpt_path=b", "export --checkpoint a --adapter=b"):
        with pytest.raises(BeftError, match="two names of one option: give one of them"):
            with_adapter(command.split())
