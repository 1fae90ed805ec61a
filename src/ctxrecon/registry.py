"""Registries of solvers, baselines, networks, masks and mask samplers by name.

Each kind has one registry. Adding an entry takes one line, from inside the package or outside it::

    from ctxrecon.solvers import SOLVERS

    SOLVERS.register("my_solver", MySolver, title="My solver")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import fields
from typing import Any, Generic, TypeVar

from ctxrecon.errors import InputError

Made = TypeVar("Made", bound=Callable[..., Any])


class Registry(MutableMapping[str, Made], Generic[Made]):
    """Mapping from names to the classes or functions of one kind.

    Names are case-insensitive, and hyphens equal underscores: ``"l1-wavelet"`` is
    ``"l1_wavelet"``.

    Args:
        kind: Kind of the entries, such as ``"solver"``, for messages.

    Example:
        >>> from ctxrecon.registry import Registry
        >>> windows = Registry("window")
        >>> windows.register("hann", lambda n: n, title="Hann window", aliases=["hanning"])
        >>> windows.find("Hanning"), windows.title("hann")
        ('hann', 'Hann window')
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Made] = {}
        self._titles: dict[str, str] = {}
        self._aliases: dict[str, str] = {}

    def register(
        self,
        name: str,
        factory: Made,
        *,
        title: str | None = None,
        aliases: Sequence[str] = (),
    ) -> None:
        """Add an entry.

        Args:
            name: Name, a lower-case identifier as in ``SOLVERS["dds"]``.
            factory: Class or function.
            title: Title in tables and figures (default: the name).
            aliases: Further names.

        Raises:
            InputError: If the name is not a lower-case identifier, or is already registered.
        """
        if not name.isidentifier() or name != _key(name):
            raise InputError(
                f"expected the name of a {self.kind} as a lower-case identifier, got {name!r}"
            )
        for each in (name, *aliases):
            if self._canonical(each) in self._entries:
                raise InputError(f"there is already a {self.kind} {each!r}: use another name")
        self._entries[name] = factory
        self._titles[name] = name if title is None else title
        self._aliases.update({_key(alias): name for alias in aliases})

    def find(self, name: object) -> str:
        """Return the canonical name of an entry, from any of its spellings.

        Raises:
            InputError: If the name is unknown; the message lists the known ones.
        """
        if not isinstance(name, str) or name not in self:
            raise InputError(f"unknown {self.kind} {name!r}: expected one of {', '.join(self)}")
        return self._canonical(name)

    def make(self, name: str, options: Mapping[str, Any]) -> Any:
        """Instantiate an entry that is a dataclass, whose fields are its options.

        Raises:
            InputError: If the name is unknown, or the entry does not have an option.
        """
        name = self.find(name)
        chosen: Any = self[name]
        known = [field.name for field in fields(chosen)]
        unknown = [option for option in options if option not in known]
        if unknown:
            raise InputError(
                f"the {self.kind} {name} has no option {', '.join(unknown)}: "
                f"expected one of {', '.join(known)}"
            )
        return chosen(**options)

    def title(self, name: str) -> str:
        """Return the title of an entry in tables and figures."""
        return self._titles[self.find(name)]

    def name_of(self, factory: object) -> str | None:
        """Return the name under which a factory is registered, or ``None``."""
        return next((name for name, known in self._entries.items() if known is factory), None)

    def _canonical(self, name: str) -> str:
        key = _key(name)
        return self._aliases.get(key, key)

    def __getitem__(self, name: str) -> Made:
        return self._entries[self._canonical(name)]

    def __setitem__(self, name: str, factory: Made) -> None:
        known = self._canonical(name)
        if known in self._entries:
            self._entries[known] = factory
        else:
            self.register(name, factory)

    def __delitem__(self, name: str) -> None:
        known = self._canonical(name)
        del self._entries[known], self._titles[known]
        self._aliases = {alias: to for alias, to in self._aliases.items() if to != known}

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._canonical(name) in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _key(name: str) -> str:
    return name.lower().replace("-", "_")
