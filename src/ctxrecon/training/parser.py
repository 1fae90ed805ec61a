"""Command lines of training scripts: an optional file of options, and overriding options."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from transformers import HfArgumentParser

from ctxrecon.training.config import Option, TrainingConfig, UsageError, read_options
from ctxrecon.training.trackers import choose_tracker

C = TypeVar("C", bound=TrainingConfig)

_FILES = "config_file is a YAML or JSON file with default options and must come first."


class TrainingParser(HfArgumentParser):
    """Argument parser that raises :class:`UsageError` instead of printing the usage and exiting.

    Args:
        config: Class of the configuration whose fields become options (default: none).
        given: Values by name that replace its defaults.
        **settings: Settings of :class:`argparse.ArgumentParser`.
    """

    def __init__(
        self,
        config: type[TrainingConfig] | None = None,
        given: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.given = given or {}
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(config, **settings)

    def add_argument(
        self, *names: Any, option: Option | None = None, **settings: Any
    ) -> argparse.Action:
        """Add an argument; the field of a configuration only under its own name."""
        if option is None:
            return super().add_argument(*names, **settings)
        name = names[0].removeprefix("--")
        if option.check is not None:
            settings["type"] = option.check
        if option.choices is not None:
            settings["choices"] = option.choices
        if option.may_be_empty:
            settings["nargs"] = "*"
        if name in self.given:
            settings.update(default=self.given[name], required=False)
        notes = [settings["help"]] if settings.get("help") else []
        if settings.get("required"):
            notes.append("(required)")
        elif settings.get("default") not in (None, False, []):
            notes.append("(default: %(default)s)")
        return super().add_argument(names[0], **{**settings, "help": " ".join(notes)})

    def error(self, message: str) -> NoReturn:
        """Raise a usage error."""
        raise UsageError(f"{message} (--help lists the options)")


def parse_config(
    config: type[C],
    argv: Sequence[str] | None,
    *,
    description: str,
    program: str | None = None,
) -> C:
    """Parse a command line to a configuration with its tracker chosen.

    The first word may be a YAML or JSON file of options, which the command line overrides. Option
    names can be written with underscores or hyphens.

    Args:
        config: Class of the configuration.
        argv: Command line (default: that of the process).
        description: Description for ``--help``.
        program: Program name for ``--help``.

    Raises:
        UsageError: If options are unknown, missing or out of range.
        InputError: If a file cannot be read, or the tracker is not installed.
    """
    words = [_underscored(word) for word in (sys.argv[1:] if argv is None else argv)]
    file = words[0] if words and not words[0].startswith("-") else None
    given = read_options(config, Path(file)) if file is not None else {}
    parser = TrainingParser(
        config,
        given,
        usage="%(prog)s [config_file] --option value ...",
        description=f"{description}\n{_FILES}",
        prog=program,
    )
    words = words if file is None else words[1:]
    made, unknown = parser.parse_args_into_dataclasses(
        words, look_for_args_file=False, return_remaining_strings=True
    )
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return dataclasses.replace(made, report_to=choose_tracker(made.report_to))


@dataclasses.dataclass(frozen=True)
class TrainingCommand(Generic[C]):
    """Training as a command.

    Attributes:
        config: Class of its configuration.
        train: Function that runs a configuration.
        description: Description for ``--help``.
    """

    config: type[C]
    train: Callable[[C], None]
    description: str

    def parse_args(self, argv: Sequence[str] | None = None, program: str | None = None) -> C:
        """Parse a command line to a configuration; see :func:`parse_config`."""
        return parse_config(self.config, argv, description=self.description, program=program)

    def main(self, argv: Sequence[str] | None = None, program: str | None = None) -> None:
        """Train with the options of a command line.

        Args:
            argv: Options (default: those of the process).
            program: Program name for ``--help``.
        """
        self.train(self.parse_args(argv, program))


def _underscored(word: str) -> str:
    """Replace the hyphens of an option's name by underscores and leave its value."""
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"
