"""The generated pages of the site: tutorials, benchmark results and the command-line reference.

Everything here is copied or derived from the repository at build time, so it cannot go stale. Git
ignores what is written. Links in the sources are links of the repository, which GitHub resolves
too; :func:`site_links` rewrites them for the site.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

import typer

from ctxrecon.cli import app
from ctxrecon.training import TrainingConfig

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent

PAGES = {
    "benchmarks/README.md": "docs/benchmarks/studies.md",
    "CHANGELOG.md": "docs/changelog.md",
    "CONTRIBUTING.md": "docs/contributing/index.md",
    "README.md": "docs/index.md",
    "src/ctxrecon/checkpoints/prior/README.md": "docs/reference/shipped-prior.md",
    "src/ctxrecon/checkpoints/reconstructor/README.md": "docs/reference/shipped-network.md",
}
"""Files of the repository that are a page of the site, and their places there."""
STYLE_PAGE = "\n:::{toctree}\n:hidden:\n\nstyle\n:::\n"
FOLDERS = {"benchmarks/results": "docs/benchmarks/results", "examples": "docs/tutorials"}
"""The same of folders."""

TRAININGS = {
    "prior": "Prior: `ctxrecon train prior`",
    "clip": "Text encoder: `ctxrecon train clip`",
    "reconstructor": "Direct network: `ctxrecon train reconstructor`",
    "masks": "Learned masks: `ctxrecon train masks`",
    "tasks": "Tasks from k-space: `ctxrecon train tasks`",
    "cross_modal": "Cross-modal network: `ctxrecon train cross_modal`",
}
"""Packages of `ctxrecon.training`, and the headings of their options."""

TUTORIALS_INTRODUCTION = """# Tutorials

Each tutorial is a notebook in the folder `examples/` and runs in about a minute or less on a CPU,
offline. The outputs were produced while this site was built.

"""

RESULTS_INTRODUCTION = """# All results

Each page is generated from the JSON record of its name in `benchmarks/results`.

"""

GONE = 'onerror="this.remove()"'
"""A picture that there is not, as of a notebook without figures, leaves no trace."""

_LINK = re.compile(r"(\]\()([^)\s]+)\)")


def write_pages() -> None:
    """Write every generated page."""
    _write_tutorials(DOCS / "tutorials")
    _write_results(DOCS / "benchmarks" / "results")
    for source, page in PAGES.items():
        if source != "README.md":
            text = (ROOT / source).read_text(encoding="utf-8")
            _write(ROOT / page, text + (STYLE_PAGE if source == "CONTRIBUTING.md" else ""))
    _write(DOCS / "how-to" / "commands.md", "".join(_command_page()))
    _write(DOCS / "how-to" / "training-options.md", "".join(_training_page()))


def _write(path: Path, text: str) -> None:
    """Write a page, but leave an unchanged one alone so that Sphinx does not read it again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists() or target.read_bytes() != source.read_bytes():
        shutil.copyfile(source, target)


def _remove_others(folder: Path, kept: set[str]) -> None:
    """Remove pages of an earlier build whose source is gone."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in kept:
            path.unlink()


# Links


def site_links(text: str, page: str) -> str:
    """Rewrite the relative links of a page from places in the repository to places in the site.

    Args:
        text: Source of the page, Markdown or a notebook.
        page: Path of the page relative to ``docs``, such as ``benchmarks/studies.md``.
    """
    place = PurePosixPath("docs") / page
    source = _source_of(place)

    def rewritten(found: re.Match[str]) -> str:
        link, hash_sign, anchor = found[2].partition("#")
        if not link or re.match(r"\w+:", link):
            return found[0]
        target = os.path.normpath(source.parent / link)
        on_site = _site_path(target)
        if on_site == target and not (ROOT / target).exists():  # code, such as NAMES["a"](x)
            return found[0]
        new = os.path.relpath(on_site, place.parent)
        return f"{found[1]}{new}{hash_sign}{anchor})"

    return _LINK.sub(rewritten, text)


def _source_of(place: PurePosixPath) -> PurePosixPath:
    """Return the file of the repository that a page was made from."""
    for source, page in PAGES.items():
        if page == str(place) and source != "README.md":
            return PurePosixPath(source)
    for source, folder in FOLDERS.items():
        if str(place.parent) == folder:
            return PurePosixPath(source) / place.name
    return place


def _site_path(path: str) -> str:
    """Return where the site holds a file of the repository; the file itself if it has no page."""
    if path in PAGES:
        return PAGES[path]
    folder, name = os.path.split(path)
    if folder in FOLDERS and name.endswith((".md", ".png", ".ipynb")):
        return f"{FOLDERS[folder]}/{name}"
    return path


# Tutorials


def _write_tutorials(folder: Path) -> None:
    notebooks = sorted((ROOT / "examples").glob("[0-9][0-9]_*.ipynb"))
    _remove_others(folder, {path.name for path in notebooks} | {"index.md"})
    cards = []
    for path in notebooks:
        _copy(path, folder / path.name)
        title, sentence = _heading(path)
        options = f":link: {path.stem}\n:link-type: doc"
        picture = f'<img class="thumbnail" src="../{_thumbnail(path)}" alt="" {GONE}>'
        cards.append(f":::{{grid-item-card}} {title}\n{options}\n\n{sentence}\n\n{picture}\n:::\n")
    grid = "::::{grid} 1 2 2 3\n:gutter: 3\n\n" + "\n".join(cards) + "::::\n\n"
    entries = "\n".join(path.stem for path in notebooks)
    toctree = f":::{{toctree}}\n:hidden:\n\n{entries}\n:::\n"
    body = grid + toctree if notebooks else "No notebook was found.\n"
    _write(folder / "index.md", TUTORIALS_INTRODUCTION + body)


def _thumbnail(notebook: Path) -> str:
    return f"_images/tutorial-{notebook.stem}.png"


def write_thumbnails(executed: Path, site: Path) -> None:
    """Write the richest picture of each executed notebook where the gallery shows it.

    Args:
        executed: Folder of executed notebooks.
        site: Folder of the built site.
    """
    for path in sorted(executed.glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", ())]
        pictures = [output["data"]["image/png"] for output in outputs if _is_picture(output)]
        if pictures:
            target = site / _thumbnail(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(base64.b64decode(max(pictures, key=len)))


def _is_picture(output: dict[str, Any]) -> bool:
    return "image/png" in output.get("data", {})


def _heading(notebook: Path) -> tuple[str, str]:
    """Return the title of a notebook and the first sentence of its text."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    title, _, rest = text.strip().partition("\n")
    paragraph = " ".join(rest.strip().partition("\n\n")[0].split())
    sentence = re.match(r".*?[.?!](?=\s+[A-Z`]|$)", paragraph)
    return title.lstrip("# "), sentence.group() if sentence else paragraph


# Benchmarks


def _write_results(folder: Path) -> None:
    """Copy the result pages with their pictures; titles that several share name their study."""
    results = ROOT / "benchmarks" / "results"
    pages = {path: path.read_text(encoding="utf-8") for path in sorted(results.glob("*.md"))}
    pictures = sorted(results.glob("*.png"))
    _remove_others(folder, {"index.md", *(path.name for path in [*pages, *pictures])})
    titles = Counter(text.partition("\n")[0] for text in pages.values())
    for path, text in pages.items():
        title, line_end, rest = text.partition("\n")
        shared = titles[title] > 1
        _write(folder / path.name, f"{title} ({path.stem})" + line_end + rest if shared else text)
    for path in pictures:
        _copy(path, folder / path.name)
    entries = "\n".join(path.stem for path in pages)
    _write(folder / "index.md", f"{RESULTS_INTRODUCTION}:::{{toctree}}\n\n{entries}\n:::\n")


# Command line


def _command_page() -> Iterator[str]:
    """Yield the reference of the command line, one section a command."""
    group = typer.main.get_command(app)
    yield "# Commands and options\n\nThis page is generated from the program itself; "
    yield "`ctxrecon COMMAND --help` prints the same. The options of `ctxrecon train` are on "
    yield "[a page of their own](training-options.md).\n\n"
    yield from _sections(group, typer.Context(group, info_name="ctxrecon"))


def _sections(command: Any, context: typer.Context) -> Iterator[str]:
    yield f"## {context.command_path}\n\n"
    help_text = (command.help or "").partition("\f")[0].strip()
    yield f"{_escaped(help_text)}\n\n"
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{context.command_path} {usage}\n```\n\n"
    for parameter in command.params:
        record = parameter.get_help_record(context)
        name, text = record or (parameter.make_metavar(context), getattr(parameter, "help", ""))
        yield _entry(name, text)
    names = command.list_commands(context) if hasattr(command, "list_commands") else ()
    for name in names:
        child = command.get_command(context, name)
        yield from _sections(child, typer.Context(child, info_name=name, parent=context))


def _training_page() -> Iterator[str]:
    """Yield the options of every training, those that all share first."""
    yield "# Training options\n\nThis page is generated from the configurations of all trainings. "
    yield "`ctxrecon train SUBJECT --help` and `training/train_*.py --help` print the same. "
    yield "Options "
    yield "can also be read from a YAML or JSON file that is named first.\n\n"
    shared = {field.name for field in dataclasses.fields(TrainingConfig)}
    yield "## All trainings\n\n"
    yield from map(_option, dataclasses.fields(TrainingConfig))
    for subject, script in TRAININGS.items():
        package = import_module(f"ctxrecon.training.{subject}")
        config = next(getattr(package, name) for name in package.__all__ if name.endswith("Config"))
        yield f"## {script}\n\n"
        changed = "Options of all trainings with another default here:"
        own = [field for field in dataclasses.fields(config) if field.name not in shared]
        yield from map(_option, own)
        base = {field.name: _default(field) for field in dataclasses.fields(TrainingConfig)}
        others = [
            f"`--{field.name} {_default(field)}`"
            for field in dataclasses.fields(config)
            if field.name in shared and _default(field) != base[field.name]
        ]
        yield f"{changed} {', '.join(others)}.\n\n" if others else ""


def _option(field: dataclasses.Field) -> str:
    default = _default(field)
    text = field.metadata.get("help") or ""
    choices = getattr(field.metadata.get("option"), "choices", None)
    notes = [f"one of {', '.join(choices)}"] if choices else []
    notes += [f"default: {default}"] if default else []
    return _entry(f"--{field.name}", f"{text} ({'; '.join(notes)})".strip() if notes else text)


def _default(field: dataclasses.Field) -> str:
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    absent = value is None or value is False or value is dataclasses.MISSING
    return "" if absent else str(value)


def _entry(name: str, text: str) -> str:
    return f"`{name}`\n: {_escaped(text) or '–'}\n\n"


def _escaped(text: str) -> str:
    """Return plain text as Markdown: markup characters escaped, paragraphs kept."""
    return re.sub(r"([\\`*_{}<>\[\]#|$])", r"\\\1", text)
