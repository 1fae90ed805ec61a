"""Command lines of training: a file of options, if one is given, and options that override it."""

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

_FILES = "config_file, a YAML or JSON file named before all options, holds defaults for them."


class TrainingParser(HfArgumentParser):
    """A parser that raises :class:`UsageError` where others print their usage and exit.

    Args:
        config: class of the configuration whose fields become options; none by default.
        given: values that take the place of its defaults, by name.
        settings: of :class:`argparse.ArgumentParser`.
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
        """Add an argument, or the field of a configuration under its own name alone."""
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
        """Refuse the command line."""
        raise UsageError(f"{message} (--help lists the options)")


def parse_config(
    config: type[C],
    argv: Sequence[str] | None,
    *,
    description: str,
    program: str | None = None,
) -> C:
    """The configuration that a command line gives, with its tracker chosen.

    The first word may name a YAML or JSON file, whose options stand where the command line has
    none. Options are written with underscores or hyphens.

    Args:
        config: class of the configuration.
        argv: the command line; that of the process by default.
        description: for ``--help``.
        program: name for ``--help``.

    Raises:
        UsageError: options that are unknown, missing or out of their ranges.
        InputError: a file that cannot be read, or a tracker that is not installed.
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
    """A training as a command.

    Attributes:
        config: class of its configuration.
        train: runs it as configured.
        description: for ``--help``.
    """

    config: type[C]
    train: Callable[[C], None]
    description: str

    def parse_args(self, argv: Sequence[str] | None = None, program: str | None = None) -> C:
        """The configuration that a command line gives; see :func:`parse_config`."""
        return parse_config(self.config, argv, description=self.description, program=program)

    def main(self, argv: Sequence[str] | None = None, program: str | None = None) -> None:
        """Train as a command line asks.

        Args:
            argv: the options; those of the process by default.
            program: the name of the command, for ``--help``.
        """
        self.train(self.parse_args(argv, program))


def _underscored(word: str) -> str:
    """An option with its hyphens as underscores; its value as it is."""
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"
