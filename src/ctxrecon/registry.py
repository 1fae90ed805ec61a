"""Things by name: solvers, baselines, networks, masks and samplers of masks.

Each kind has one registry, and adding to it is one line, from inside the package or outside:

    >>> from ctxrecon.solvers import SOLVERS
    >>> SOLVERS.register("my_solver", MySolver, title="My solver")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import fields
from typing import Any, Generic, TypeVar

from ctxrecon.errors import InputError

Made = TypeVar("Made", bound=Callable[..., Any])


class Registry(MutableMapping[str, Made], Generic[Made]):
    """Names of one kind of thing, with what makes it.

    Names are read in any case and with hyphens or underscores: ``"l1-wavelet"`` is
    ``"l1_wavelet"``.

    Args:
        kind: such as ``"solver"``, for messages.
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
            name: an identifier, as in ``SOLVERS["dds"]``.
            factory: class or function that makes it, or does it.
            title: in tables and figures; the name by default.
            aliases: further names.

        Raises:
            InputError: a name that is taken, or none.
        """
        if not name.isidentifier() or name != _key(name):
            raise InputError(
                f"expected the name of a {self.kind} as a lower-case identifier, got {name!r}"
            )
        for each in (name, *aliases):
            if self._canonical(each) in self._entries:
                raise InputError(f"there is a {self.kind} {each!r} already: take another name")
        self._entries[name] = factory
        self._titles[name] = name if title is None else title
        self._aliases.update({_key(alias): name for alias in aliases})

    def find(self, name: object) -> str:
        """The entry's own name, from any form of it.

        Raises:
            InputError: an unknown name, with those that there are.
        """
        if not isinstance(name, str) or name not in self:
            raise InputError(f"unknown {self.kind} {name!r}: expected one of {', '.join(self)}")
        return self._canonical(name)

    def make(self, name: str, options: Mapping[str, Any]) -> Any:
        """Make an entry that is a dataclass, whose fields are its options.

        Raises:
            InputError: an unknown name, or an option that it does not have.
        """
        name = self.find(name)
        chosen: Any = self[name]
        known = [field.name for field in fields(chosen)]
        unknown = [option for option in options if option not in known]
        if unknown:
            raise InputError(
                f"the {self.kind} {name} has no option {', '.join(unknown)}: "
                f"expected some of {', '.join(known)}"
            )
        return chosen(**options)

    def title(self, name: str) -> str:
        """How the entry is called in tables and figures."""
        return self._titles[self.find(name)]

    def name_of(self, factory: object) -> str | None:
        """The name under which a factory is known, ``None`` if it is not."""
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
