"""Which part of the package imports which: the rules of CONTRIBUTING."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import beft_lightning

PACKAGE = Path(beft_lightning.__file__).parent


def imports(module: Path) -> Iterator[str]:
    """All modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize(
    ("imported", "places"),
    [
        ("beft_lightning.commands", ("commands", "trainer.py", "__main__.py")),
        ("beft_lightning.cli", ("__main__.py",)),
        ("matplotlib", ("pictures",)),
    ],
)
def test_it_is_imported_in_few_places(imported: str, places: tuple[str, ...]) -> None:
    found = {
        module.relative_to(PACKAGE).parts[0]
        for module in PACKAGE.rglob("*.py")
        if any(f"{name}.".startswith(f"{imported}.") for name in imports(module))
    }
    assert found == set(places)


@pytest.mark.parametrize(
    ("part", "unknown"),
    [("bias", "lightning"), ("tasks", "beft_lightning.callbacks"), ("data", "beft_lightning.callbacks")],
)
def test_it_does_not_know(part: str, unknown: str) -> None:
    found = [
        module.name
        for module in (PACKAGE / part).rglob("*.py")
        if any(f"{name}.".startswith(f"{unknown}.") for name in imports(module))
    ]
    assert not found
