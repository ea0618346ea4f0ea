"""A command line in the form that the parser takes."""

import pytest

from beft_lightning.arguments import for_parser


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        ("fit --data Glue --data.task sst2", "fit --data Glue --data.task sst2"),
        ("fit --data.task sst2 --a b --data Glue --c", "fit --data Glue --data.task sst2 --a b --c"),
        ("fit --a --data.task=sst2 --data=Glue", "fit --a --data=Glue --data.task=sst2"),
        ("fit --config c --data.task sst2", "fit --config c --data.task sst2"),
        ("fit --data.task sst2 --data", "fit --data --data.task sst2"),
        ("plan --json --data.task sst2 --data Glue", "plan --json=true --data Glue --data.task sst2"),
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
