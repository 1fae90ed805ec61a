"""Typed configurations: the options of the training loop, their ranges, and files of options."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from accelerate.utils import LoggerType

from ctxrecon.errors import InputError
from ctxrecon.files import read_json

LR_SCHEDULERS = ("constant", "constant_with_warmup", "linear", "cosine", "polynomial")
TRACKERS = (*sorted(str(one.value) for one in LoggerType), "none")
"""The experiment trackers of accelerate; "all" stands for those that are installed."""

MAX_SEED = 2**24 - 1
"""Generators are seeded by ``seed * 2**40`` and the number of a sample, in 64 bits."""
MAX_RESOLUTION = 2048
RUN_NOTES = ("num_processes", "device", "torch_threads", "command")
"""What ``config.json`` of a run notes beside its options."""
STAGE = "from step "
"""``config.json`` holds the options of a run and of its resumes under such keys."""

_MOST_BYTES = 2**20
_SCALARS = (str, int, float, bool)


class UsageError(InputError):
    """An option that is unknown, missing or out of its range."""


@dataclass(frozen=True)
class Whole:
    """Convert text to a whole number, or check one.

    Args:
        low: smallest value.
        high: largest value, if there is one.
    """

    low: int
    high: int | None = None

    def __call__(self, given: Any) -> int:
        """The number.

        Raises:
            argparse.ArgumentTypeError: another type, or out of range.
        """
        value = self.low - 1
        if isinstance(given, str):
            with suppress(ValueError):
                value = int(given)
        elif isinstance(given, int) and not isinstance(given, bool):
            value = given
        if value < self.low or (self.high is not None and value > self.high):
            end = "on" if self.high is None else f"to {self.high}"
            raise argparse.ArgumentTypeError(
                f"expected a whole number from {self.low} {end}, got {_shown(given)}"
            )
        return value


@dataclass(frozen=True)
class Number:
    """Convert text to a finite number, or check one.

    Args:
        low: smallest value.
        high: largest value.
        above: whether ``low`` itself is refused.
        below: whether ``high`` itself is refused.
    """

    low: float = 0.0
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __call__(self, given: Any) -> float:
        """The number.

        Raises:
            argparse.ArgumentTypeError: another type, or out of range.
        """
        try:
            value = math.nan if isinstance(given, bool) else float(given)
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        inside = (value > self.low if self.above else value >= self.low) and (
            value < self.high if self.below else value <= self.high
        )
        if not math.isfinite(value) or not inside:
            wanted = f"above {self.low:g}" if self.above else f"of {self.low:g} or more"
            if math.isfinite(self.high):
                wanted += f" and {'below' if self.below else 'at most'} {self.high:g}"
            raise argparse.ArgumentTypeError(f"expected a number {wanted}, got {_shown(given)}")
        return value


SHARE = Number(0, 1)
"""The check of an option that is a probability or a part of a whole."""
RATE = Number(0, 1e6)
"""The check of an option that is a learning rate."""
RESOLUTION = Whole(16, MAX_RESOLUTION)
"""The check of an option that is a matrix size."""
SEED = Whole(0, MAX_SEED)
"""The check of ``--seed``."""

Check = Callable[[Any], Any]


@dataclass(frozen=True)
class Option:
    """What a configuration knows of one of its options, beside its type and default.

    Attributes:
        check: converts text or checks a value, for numbers.
        choices: the values that there are, for words.
        may_be_empty: whether a list may have no values.
        on_resume: "refused", a run cannot be resumed with another value, since its weights may fit
            but would mean something else; "logged"; or "free", changes without a word.
        in_card: whether the model card shows it.
    """

    check: Check | None = None
    choices: tuple[str, ...] | None = None
    may_be_empty: bool = False
    on_resume: str = "logged"
    in_card: bool = False


def option(
    default: Any = MISSING,
    text: str | None = None,
    *,
    check: Check | None = None,
    choices: Iterable[str] | None = None,
    may_be_empty: bool = False,
    on_resume: str = "logged",
    in_card: bool = False,
) -> Any:
    """A field of a configuration, as :class:`transformers.HfArgumentParser` reads it.

    Args:
        default: of the option; without one it has to be given.
        text: for ``--help``.
        check: see :class:`Option`, as are the others.
        choices: likewise.
        may_be_empty: likewise.
        on_resume: likewise.
        in_card: likewise.
    """
    words = None if choices is None else tuple(choices)
    own = Option(check, words, may_be_empty, on_resume, in_card)
    metadata = {"help": text, "option": own}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The options of the loop, which every training has. Bad values are refused when it is made."""

    output_dir: Path = option(text="a new folder, or that of a run to resume", on_resume="free")
    train_batch_size: int = option(16, "on each process", check=Whole(1, 2**16), in_card=True)
    gradient_accumulation_steps: int = option(1, check=Whole(1, 2**16), in_card=True)
    max_train_steps: int | None = option(
        None, "optimiser steps", check=Whole(1, 10**9), on_resume="free", in_card=True
    )
    max_train_minutes: float | None = option(
        None,
        "end at this time, with the learning rate fallen by then; the last checkpoint and "
        "validation come after it",
        check=Number(above=True),
        on_resume="free",
        in_card=True,
    )
    learning_rate: float = option(1e-3, check=RATE, in_card=True)
    lr_scheduler: str = option("cosine", choices=LR_SCHEDULERS, in_card=True)
    lr_warmup_steps: int = option(100, check=Whole(0))
    adam_beta1: float = option(0.9, check=Number(0, 1, below=True))
    adam_beta2: float = option(0.999, check=Number(0, 1, below=True))
    adam_weight_decay: float = option(1e-3, check=Number(0, 1e6))
    adam_epsilon: float = option(1e-8, check=Number(above=True))
    max_grad_norm: float = option(1.0, check=Number(above=True))
    ema_decay: float = option(
        0.999,
        "of the averaged weights, which are kept",
        check=Number(0, 1, below=True),
        in_card=True,
    )
    mixed_precision: str = option("no", choices=("no", "bf16", "fp16"), in_card=True)
    checkpointing_steps: int = option(200, check=Whole(1), on_resume="free")
    checkpoints_total_limit: int = option(2, check=Whole(1), on_resume="free")
    resume_from_checkpoint: str | None = option(
        None,
        "'auto': the newest checkpoint of --output_dir, or a new run where there is none; "
        "'latest': the newest one; or the folder of one",
        on_resume="free",
    )
    validation_steps: int = option(500, check=Whole(1), on_resume="free")
    dataloader_num_workers: int = option(0, check=Whole(0, 256), on_resume="free")
    report_to: str | None = option(
        None,
        "where curves are shown; tensorboard by default, where it is installed",
        choices=TRACKERS,
        on_resume="free",
    )
    seed: int = option(0, check=SEED, on_resume="refused", in_card=True)

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: a value of another type or out of its range.
        """
        for name, known in fields_of(type(self)).items():
            try:
                value = known.checked(getattr(self, name))
            except argparse.ArgumentTypeError as error:
                raise UsageError(f"{name}: {error}") from None
            object.__setattr__(self, name, value)
        if self.max_train_steps is None and self.max_train_minutes is None:
            raise UsageError("expected an end: give --max_train_steps or --max_train_minutes")

    def as_json(self) -> dict[str, Any]:
        """The options as ``config.json`` holds them."""
        return json.loads(json.dumps(dataclasses.asdict(self), default=str))


C = TypeVar("C", bound=TrainingConfig)


@dataclass(frozen=True)
class Field:
    """A field of a configuration: its option, the type of its values, and what may be left out."""

    option: Option
    kind: type
    many: bool
    optional: bool

    def checked(self, value: Any) -> Any:
        """The value as the configuration holds it.

        Raises:
            argparse.ArgumentTypeError: another type, or out of range.
        """
        if value is None and self.optional:
            return None
        if not self.many:
            return self._one(value)
        values = list(value) if isinstance(value, list | tuple) else [value]
        if not values and not self.option.may_be_empty:
            raise argparse.ArgumentTypeError("expected one value or more, got none")
        return [self._one(one) for one in values]

    def _one(self, value: Any) -> Any:
        choices = self.option.choices
        if self.option.check is not None:
            return self.option.check(value)
        if choices is not None:
            fits, wanted = isinstance(value, str) and value in choices, "one of "
            wanted += ", ".join(choices)
            if isinstance(value, bool):  # as YAML reads the word no
                wanted += " in quotes"
        elif self.kind is Path:
            fits, wanted = isinstance(value, str | Path), "a path"
        else:
            fits = isinstance(value, self.kind)
            wanted = "true or false" if self.kind is bool else "text"
        if not fits:
            raise argparse.ArgumentTypeError(f"expected {wanted}, got {_shown(value)}")
        return self.kind(value)


def fields_of(config: type[TrainingConfig]) -> Mapping[str, Field]:
    """The fields of a configuration by name."""
    hints = get_type_hints(config)
    found = {}
    for field in dataclasses.fields(config):
        hint = hints[field.name]
        choices = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        (kind,) = (one for one in choices if one is not NoneType)
        many = get_origin(kind) is list
        found[field.name] = Field(
            field.metadata["option"], get_args(kind)[0] if many else kind, many, NoneType in choices
        )
    return found


def read_options(config: type[TrainingConfig], path: Path) -> dict[str, Any]:
    """Options of a configuration from a YAML or JSON file, or those of a run's ``config.json``.

    Args:
        config: the class of the configuration.
        path: a file that ends in ``.yaml``, ``.yml`` or ``.json``. Of a run that was resumed the
            last options count.

    Raises:
        UsageError: an option that the configuration does not have, or a value of another type or
            out of its range.
        InputError: a file that cannot be read, is too large, or holds something else.
    """
    given = _read_mapping(path)
    if given and all(str(key).startswith(STAGE) for key in given):
        last = list(given.values())[-1]
        if not isinstance(last, dict):
            raise InputError(f"{path} is damaged, expected the options of each run")
        given = {key: value for key, value in last.items() if key not in RUN_NOTES}
    known = fields_of(config)
    found = {}
    for key, value in given.items():
        name = str(key).replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else "--help lists the options"
            raise UsageError(f"{path}: there is no option {name[:80]!r}: {hint}")
        try:
            found[name] = known[name].checked(value)
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"{path}: {name}: {error}") from None
    return found


def read_config(config: type[C], path: Path) -> C:
    """A configuration from a file, see :func:`read_options`; so also that of a run.

    Raises:
        UsageError: as there, or options that are missing.
        InputError: as there.
    """
    given = read_options(config, path)
    for field in dataclasses.fields(config):
        needed = field.default is MISSING and field.default_factory is MISSING
        if needed and field.name not in given:
            raise UsageError(f"{path}: the option {field.name} is missing, add it")
    return config(**given)


def _read_mapping(path: Path) -> dict[Any, Any]:
    """The object in a YAML or JSON file."""
    remedy = "give a YAML or JSON file of options"
    if path.suffix.lower() not in (".yaml", ".yml", ".json"):
        raise UsageError(f"{path} ends neither in .yaml nor in .json: {remedy}")
    try:
        size = path.stat().st_size
        text = path.read_bytes() if size <= _MOST_BYTES else b""
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {remedy}") from error
    if size > _MOST_BYTES:
        raise InputError(f"{path} has {size} bytes, more than options need: {remedy}")
    if path.suffix.lower() == ".json":
        return read_json(path, "a configuration", remedy)
    import yaml

    try:
        found = yaml.safe_load(text.decode("utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is damaged, not valid YAML ({reason}): {remedy}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no options by name, but {_shown(found)}: {remedy}")
    return found


def _shown(value: Any) -> str:
    """A value for a message; of what nests only its type, which may be short and large at once."""
    if value is None or isinstance(value, _SCALARS):
        return str(value)[:80] if not isinstance(value, bool) else str(value).lower()
    return f"a {type(value).__name__}"
