"""Typed configurations: options of the training loop, their ranges, and files of options."""

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
"""Experiment trackers of accelerate; "all" stands for all installed ones."""

MAX_SEED = 2**24 - 1
"""Upper limit of the seed: generators use ``seed * 2**40`` plus a sample number, in 64 bits."""
MAX_RESOLUTION = 2048
RUN_NOTES = ("num_processes", "device", "torch_threads", "command")
"""Entries that ``config.json`` of a run records in addition to its options."""
STAGE = "from step "
"""Prefix of the keys in ``config.json`` that hold the options of a run and of its resumes."""

_MOST_BYTES = 2**20
_SCALARS = (str, int, float, bool)


class UsageError(InputError):
    """Error for an option that is unknown, missing or out of range."""


@dataclass(frozen=True)
class Whole:
    """Convert text to a whole number, or validate one.

    Args:
        low: Smallest allowed value.
        high: Largest allowed value (default: unlimited).
    """

    low: int
    high: int | None = None

    def __call__(self, given: Any) -> int:
        """Return the number.

        Raises:
            argparse.ArgumentTypeError: If the type is wrong or the value is out of range.
        """
        value = self.low - 1
        if isinstance(given, str):
            with suppress(ValueError):
                value = int(given)
        elif isinstance(given, int) and not isinstance(given, bool):
            value = given
        if value < self.low or (self.high is not None and value > self.high):
            wanted = f"of at least {self.low}"
            if self.high is not None:
                wanted = f"from {self.low} to {self.high}"
            raise argparse.ArgumentTypeError(
                f"expected a whole number {wanted}, got {_shown(given)}"
            )
        return value


@dataclass(frozen=True)
class Number:
    """Convert text to a finite number, or validate one.

    Args:
        low: Smallest allowed value.
        high: Largest allowed value.
        above: If true, ``low`` itself is excluded.
        below: If true, ``high`` itself is excluded.
    """

    low: float = 0.0
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __call__(self, given: Any) -> float:
        """Return the number.

        Raises:
            argparse.ArgumentTypeError: If the type is wrong or the value is out of range.
        """
        try:
            value = math.nan if isinstance(given, bool) else float(given)
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        inside = (value > self.low if self.above else value >= self.low) and (
            value < self.high if self.below else value <= self.high
        )
        if not math.isfinite(value) or not inside:
            wanted = f"above {self.low:g}" if self.above else f"of at least {self.low:g}"
            if math.isfinite(self.high):
                wanted += f" and {'below' if self.below else 'at most'} {self.high:g}"
            raise argparse.ArgumentTypeError(f"expected a number {wanted}, got {_shown(given)}")
        return value


SHARE = Number(0, 1)
"""Check of an option that is a probability or a share."""
RATE = Number(0, 1e6)
"""Check of an option that is a learning rate."""
RESOLUTION = Whole(16, MAX_RESOLUTION)
"""Check of an option that is a matrix size."""
SEED = Whole(0, MAX_SEED)
"""Check of ``--seed``."""

Check = Callable[[Any], Any]


@dataclass(frozen=True)
class Option:
    """Properties of a configuration option in addition to its type and default.

    Attributes:
        check: Function that converts text or validates a value, for numbers.
        choices: Allowed values, for words.
        may_be_empty: If true, a list may be empty.
        on_resume: Effect of a changed value when a run is resumed: "refused" raises, because the
            weights may fit but would have another meaning; "logged" logs it; "free" ignores it.
        in_card: If true, the model card shows the option.
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
    """Define a field of a configuration, as read by :class:`transformers.HfArgumentParser`.

    Args:
        default: Default value; without one the option is required.
        text: Text for ``--help``.
        check: Function that converts text or validates a value, see :class:`Option`.
        choices: Allowed values, for words.
        may_be_empty: If true, a list may be empty.
        on_resume: Effect of a changed value on resume: "refused", "logged" or "free".
        in_card: If true, the model card shows the option.
    """
    words = None if choices is None else tuple(choices)
    own = Option(check, words, may_be_empty, on_resume, in_card)
    metadata = {"help": text, "option": own}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Options of the training loop, shared by all trainings and validated on construction."""

    output_dir: Path = option(text="New folder, or that of a run to resume", on_resume="free")
    train_batch_size: int = option(
        16, "Batch size on each process", check=Whole(1, 2**16), in_card=True
    )
    gradient_accumulation_steps: int = option(
        1, "Number of batches per optimizer step", check=Whole(1, 2**16), in_card=True
    )
    max_train_steps: int | None = option(
        None, "Number of optimizer steps", check=Whole(1, 10**9), on_resume="free", in_card=True
    )
    max_train_minutes: float | None = option(
        None,
        "Training time in minutes, to which the learning-rate schedule is adapted; the last "
        "checkpoint and validation come on top",
        check=Number(above=True),
        on_resume="free",
        in_card=True,
    )
    learning_rate: float = option(1e-3, "Peak learning rate", check=RATE, in_card=True)
    lr_scheduler: str = option("cosine", "Learning-rate decay", choices=LR_SCHEDULERS, in_card=True)
    lr_warmup_steps: int = option(100, "Steps of linear learning-rate warmup", check=Whole(0))
    adam_beta1: float = option(0.9, "AdamW beta1", check=Number(0, 1, below=True))
    adam_beta2: float = option(0.999, "AdamW beta2", check=Number(0, 1, below=True))
    adam_weight_decay: float = option(1e-3, "AdamW weight decay", check=Number(0, 1e6))
    adam_epsilon: float = option(1e-8, "AdamW epsilon", check=Number(above=True))
    max_grad_norm: float = option(1.0, "Maximum gradient norm", check=Number(above=True))
    ema_decay: float = option(
        0.999,
        "Decay of the exponential moving average of the weights, which is exported",
        check=Number(0, 1, below=True),
        in_card=True,
    )
    mixed_precision: str = option("no", "Precision", choices=("no", "bf16", "fp16"), in_card=True)
    checkpointing_steps: int = option(200, "Checkpoint interval", check=Whole(1), on_resume="free")
    checkpoints_total_limit: int = option(
        2, "Number of checkpoints to keep", check=Whole(1), on_resume="free"
    )
    resume_from_checkpoint: str | None = option(
        None,
        "'auto': resume the newest checkpoint in --output_dir, or start a new run if there is "
        "none; 'latest': resume the newest checkpoint; or the folder of a checkpoint",
        on_resume="free",
    )
    validation_steps: int = option(500, "Validation interval", check=Whole(1), on_resume="free")
    dataloader_num_workers: int = option(
        0, "Number of data-loading processes", check=Whole(0, 256), on_resume="free"
    )
    report_to: str | None = option(
        None,
        "Experiment tracker; by default tensorboard if it is installed",
        choices=TRACKERS,
        on_resume="free",
    )
    seed: int = option(0, "Random seed", check=SEED, on_resume="refused", in_card=True)

    def __post_init__(self) -> None:
        """Validate every value.

        Raises:
            UsageError: If a value has the wrong type or is out of range.
        """
        for name, known in fields_of(type(self)).items():
            try:
                value = known.checked(getattr(self, name))
            except argparse.ArgumentTypeError as error:
                raise UsageError(f"{name}: {error}") from None
            object.__setattr__(self, name, value)
        if self.max_train_steps is None and self.max_train_minutes is None:
            raise UsageError("no end of training: set --max_train_steps or --max_train_minutes")

    def as_json(self) -> dict[str, Any]:
        """Return the options as stored in ``config.json``."""
        return json.loads(json.dumps(dataclasses.asdict(self), default=str))


C = TypeVar("C", bound=TrainingConfig)


@dataclass(frozen=True)
class Field:
    """Field of a configuration: its option, value type, and whether it is a list or optional."""

    option: Option
    kind: type
    many: bool
    optional: bool

    def checked(self, value: Any) -> Any:
        """Return the value as stored in the configuration.

        Raises:
            argparse.ArgumentTypeError: If the type is wrong or the value is out of range.
        """
        if value is None and self.optional:
            return None
        if not self.many:
            return self._one(value)
        values = list(value) if isinstance(value, list | tuple) else [value]
        if not values and not self.option.may_be_empty:
            raise argparse.ArgumentTypeError("expected at least one value, got none")
        return [self._one(one) for one in values]

    def _one(self, value: Any) -> Any:
        choices = self.option.choices
        if self.option.check is not None:
            return self.option.check(value)
        if choices is not None:
            fits, wanted = isinstance(value, str) and value in choices, "one of "
            wanted += ", ".join(choices)
            if isinstance(value, bool):  # YAML reads an unquoted no as false
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
    """Return the fields of a configuration by name."""
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
    """Read options from a YAML or JSON file, or from the ``config.json`` of a run.

    Args:
        config: Class of the configuration.
        path: File that ends in ``.yaml``, ``.yml`` or ``.json``. For a resumed run, the last
            options are used.

    Raises:
        UsageError: If an option is unknown, or a value has the wrong type or is out of range.
        InputError: If the file cannot be read, is too large, or contains something else.
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
    """Read a configuration from a file as in :func:`read_options`, such as that of a run.

    Args:
        config: Class of the configuration.
        path: File that ends in ``.yaml``, ``.yml`` or ``.json``.

    Raises:
        UsageError: If an option is unknown or missing, or a value is invalid.
        InputError: If the file cannot be read, is too large, or contains something else.
    """
    given = read_options(config, path)
    for field in dataclasses.fields(config):
        needed = field.default is MISSING and field.default_factory is MISSING
        if needed and field.name not in given:
            raise UsageError(f"{path}: the option {field.name} is missing: add it")
    return config(**given)


def _read_mapping(path: Path) -> dict[Any, Any]:
    """Read the mapping in a YAML or JSON file."""
    remedy = "use a YAML or JSON file of options"
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
        raise InputError(f"{path} has no options by name, but {_shown(found)}: {remedy}")
    return found


def _shown(value: Any) -> str:
    """Format a value for a message; containers by type only, since they may expand to any size."""
    if value is None or isinstance(value, _SCALARS):
        return str(value)[:80] if not isinstance(value, bool) else str(value).lower()
    return f"a {type(value).__name__}"
