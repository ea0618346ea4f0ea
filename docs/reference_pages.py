"""Pages of the documentation that are made from the package: a hook of MkDocs."""

import contextlib
import io
import os
import re
from pathlib import Path
from unittest import mock

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from beft_lightning.__main__ import SUBCOMMANDS, main, predict_parser

ROOT = Path(__file__).parents[1]
#: The target of a link.
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_SUBCLASSES = re.compile(r",\s+known\s+subclasses:[^)]*")
#: Widest line of a command's help; its options stand in the first columns, what they do begins in this one.
_WIDTH, _COLUMN = 160, 24


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the files of the repository that pages link to."""
    pages = {"command_line": command_line(), "yaml": yaml_options()}
    for name, content in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    pages_with_links = list((ROOT / "docs").rglob("*.md"))
    linked = {
        file for page in pages_with_links for link in _LINK.findall(page.read_text()) for file in _outside(page, link)
    }
    for path in sorted(linked):
        content = path.read_text(encoding="utf-8")
        files.append(File.generated(config, f"repository/{path.relative_to(ROOT)}.txt", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Let links to files of the repository lead to the copies on the site."""
    source = ROOT / "docs" / page.file.src_uri

    def on_site(link: re.Match[str]) -> str:
        files = _outside(source, link[1])
        # A folder has no page: the first of its files stands for it.
        up = "../" * page.file.src_uri.count("/")
        return f"]({up}repository/{files[0].relative_to(ROOT)}.txt)" if files else link[0]

    return _LINK.sub(on_site, markdown)


def _outside(page: Path, link: str) -> list[Path]:
    """Return the files that a link of a page leads to, if they lie in the repository outside the pages."""
    path = Path(os.path.normpath(page.parent / link.partition("#")[0]))
    if link.startswith("http") or not path.is_relative_to(ROOT) or path.is_relative_to(ROOT / "docs"):
        return []
    return sorted(path.glob("*.*")) if path.is_dir() else [path]


def command_line() -> str:
    """Return the page with the options of every command, from the commands' own help."""
    sections = [
        "# Command line\n",
        "Made from the help of the commands. [Commands and options](../options.md) explains.\n",
    ]
    for command, purpose in SUBCOMMANDS.items():
        sections.append(f"## {command}\n\n{purpose}\n")
        if command in ("validate", "test", "score", "compare", "plan", "download"):
            sections.append("Options of its own, beside those of `fit`:\n")
        sections.append(_table(command))
    sections.append("## predict --input\n\nPredict new inputs; without a configuration.\n")
    with _wide():
        sections.append(_rows(_options(predict_parser().format_help())))
    return "\n".join(sections)


def yaml_options() -> str:
    """Return the page with every option of a configuration, its default and its explanation."""
    # A table is the smallest configuration: it needs no benchmark.
    text = _printed("fit", "--config", str(ROOT / "configs" / "table.yaml"), "--print_config=comments")
    return (
        "# Configurations in YAML\n\nEvery option of `fit` with its default, for `configs/table.yaml`: what\n"
        "`python -m beft_lightning fit --config configs/table.yaml --print_config=comments` prints.\n\n"
        f"```yaml\n{_SUBCLASSES.sub('', text)}```\n"
    )


def _table(command: str) -> str:
    options = _options(_printed(command, "--help"))
    if command not in ("fit", "export", "serve"):
        known = {name for name, _ in _options(_printed("fit", "--help"))}
        options = [(name, text) for name, text in options if name not in known]
    return _rows(options) if options else "None.\n"


def _rows(options: list[tuple[str, str]]) -> str:
    """Return a list of definitions: in a table, long names would leave their explanations no room."""
    return "\n".join(f"`{name}`\n:   {_text(text)}\n" for name, text in options)


def _text(text: str) -> str:
    return _SUBCLASSES.sub("", text).replace("``", "`").replace("<", "&lt;").replace("*", "\\*") or "See the guides."


def _options(text: str) -> list[tuple[str, str]]:
    """Return the options of a command's help with their explanations."""
    options: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("  -"):
            # jsonargparse takes a space back by a backspace.
            name, _, explanation = line.replace(" \b", "").strip().partition("  ")
            options.append((name, explanation.strip()))
        elif line.startswith(" " * _COLUMN) and options and line.strip():
            name, explanation = options[-1]
            options[-1] = (name, f"{explanation} {line.strip()}".strip())
    return [(name, text) for name, text in options if ".help" not in name and not name.startswith("-h")]


def _printed(*arguments: str) -> str:
    """Return what a command prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit), _wide():
        main(list(arguments))
    return output.getvalue()


def _wide() -> contextlib.AbstractContextManager[object]:
    # argparse takes the width from the environment.
    return mock.patch.dict(os.environ, COLUMNS=str(_WIDTH))
