"""Slices that are done, kept on disk until all are, so that a stopped command can go on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctxrecon.commands.results import Part, Result
from ctxrecon.errors import InputError

_SETTINGS = "settings.json"


class PartialFolder:
    """A folder with a ``.npz`` for each chunk of slices, and the settings they were made with.

    Args:
        folder: made if it is not there.
        settings: everything that the images depend on, in JSON types.
        overwrite: whether slices of other settings may be thrown away.

    Raises:
        InputError: the folder holds slices of other settings, or something else.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, overwrite: bool) -> None:
        from ctxrecon.commands.paths import output_folder
        from ctxrecon.io._files import written_beside

        self.folder = folder
        if folder.is_dir() and not self._is_of(settings, overwrite):
            shutil.rmtree(folder)
        output_folder(folder)
        with written_beside(folder / _SETTINGS) as path:
            path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def _is_of(self, settings: Mapping[str, Any], overwrite: bool) -> bool:
        """Whether its slices are of these settings; if not, it may be thrown away."""
        names = {path.name for path in self.folder.iterdir() if not path.name.startswith(".")}
        if not names:
            return True
        try:
            before = json.loads((self.folder / _SETTINGS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = None
        if not isinstance(before, dict):
            raise InputError(
                f"{self.folder} does not hold slices of a run that was stopped: move it away, or "
                "name another --out"
            )
        changed = [name for name in settings if before.get(name) != settings[name]]
        if not changed:
            return True
        if not overwrite:
            name = changed[0]
            raise InputError(
                f"{self.folder} holds slices of a run with {name} {before.get(name)}, this one "
                f"has {settings[name]}: give --overwrite to drop them, or name another --out"
            )
        return False

    def __len__(self) -> int:
        """Chunks that are done."""
        return len(list(self.folder.glob("slice_*.npz")))

    def load(self, number: int) -> Part | None:
        """The chunk that begins with a slice, if it is done."""
        import numpy as np
        import torch

        path = self._path(number)
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                stored = {name: arrays[name] for name in arrays.files}
            results = []
            for place, (name, key) in enumerate(stored["names"]):
                values = {
                    what: torch.from_numpy(stored[f"{what}_{place}"])
                    for what in ("images", "residual", "std")
                    if f"{what}_{place}" in stored
                }
                seconds = float(stored["seconds"][place])
                results.append(
                    Result(
                        name=str(name),
                        key=str(key),
                        seconds=None if np.isnan(seconds) else seconds,
                        **values,
                    )
                )
            reference = stored.get("reference")
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise InputError(f"{path} is damaged ({error}): remove it to do it again") from error
        return Part(results, None if reference is None else torch.from_numpy(reference))

    def save(self, number: int, part: Part) -> None:
        """Keep the chunk that begins with a slice."""
        import numpy as np

        from ctxrecon.io._files import written_beside

        arrays: dict[str, Any] = {
            "names": np.array([(result.name, result.key) for result in part.results]),
            "seconds": np.array(
                [np.nan if result.seconds is None else result.seconds for result in part.results]
            ),
        }
        for place, result in enumerate(part.results):
            for what in ("images", "residual", "std"):
                value = getattr(result, what)
                if value is not None:
                    arrays[f"{what}_{place}"] = value.numpy()
        if part.reference is not None:
            arrays["reference"] = part.reference.numpy()
        with written_beside(self._path(number)) as path:
            np.savez(path, **arrays)

    def remove(self) -> None:
        """Throw the folder away: all slices are where they belong."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"slice_{number:05d}.npz"
