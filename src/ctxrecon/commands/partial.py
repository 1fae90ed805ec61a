"""Finished slices kept on disk until all are done, so that a stopped command can resume."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxrecon.commands.results import Part, Result
from ctxrecon.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from ctxrecon.npz import Archive

_SETTINGS = "settings.json"
_WRITING = "writing"


class PartialFolder:
    """Folder with one ``.npz`` per chunk of slices, and the settings of their reconstruction.

    Args:
        folder: Folder, created if it does not exist.
        settings: Everything that the images depend on, as JSON types.
        overwrite: Whether slices made with other settings may be deleted.

    Raises:
        InputError: If the folder holds slices made with other settings, or other files.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, overwrite: bool) -> None:
        from ctxrecon.commands.paths import output_folder
        from ctxrecon.files import write_json

        self.folder = folder
        self._layout: tuple[list[tuple[str, bool]], bool] | None = None
        if folder.is_dir() and not self._is_of(settings, overwrite):
            shutil.rmtree(folder)
        output_folder(folder)
        write_json(folder / _SETTINGS, settings)

    @staticmethod
    def was_writing(folder: Path, settings: Callable[[], Mapping[str, Any]]) -> bool:
        """Return whether a run with these settings stopped while writing its final outputs.

        Args:
            folder: Folder of the slices.
            settings: Function that returns the settings, called only if some run stopped so.

        Raises:
            InputError: If the settings of that run cannot be read.
        """
        if not os.path.isfile(folder / _WRITING):  # also False if the name is too long
            return False
        before = _settings_of(folder)
        return all(before.get(name) == value for name, value in settings().items())

    def _is_of(self, settings: Mapping[str, Any], overwrite: bool) -> bool:
        """Return whether the slices match these settings; if not, they may be deleted."""
        names = {path.name for path in self.folder.iterdir() if not path.name.startswith(".")}
        if not names:
            return True
        before = _settings_of(self.folder)
        changed = [name for name in settings if before.get(name) != settings[name]]
        if not changed:
            return True
        if not overwrite:
            name = changed[0]
            raise InputError(
                f"{self.folder} holds slices of a run with {name} {before.get(name)!s:.80}, but "
                f"this run has {settings[name]!s:.80}: give --overwrite to delete them, or "
                "another --out"
            )
        return False

    def __len__(self) -> int:
        """Return the number of finished chunks."""
        return len(list(self.folder.glob("slice_*.npz")))

    def load(self, number: int, shape: tuple[int, int, int]) -> Part | None:
        """Load the chunk that begins with a slice, or return ``None`` if it is not finished.

        Args:
            number: Number of the slice.
            shape: Shape ``(batch, ny, nx)`` of the chunk's images.

        Raises:
            InputError: If the file is damaged, or holds other slices or methods.
        """
        path = self._path(number)
        if not path.is_file():
            return None
        try:
            part = _read_part(path, shape)
            self._check_like_others(part)
        except (InputError, OSError) as error:
            raise InputError(
                f"{path} is damaged or holds other slices: delete it to reconstruct them again"
            ) from error
        return part

    def _check_like_others(self, part: Part) -> None:
        """Check that a chunk has the same contents as the others, so that they can be joined."""
        layout = [(result.key, result.std is None) for result in part.results]
        found = (layout, part.reference is None)
        self._layout = self._layout or found
        if self._layout != found:
            raise InputError(f"expected {self._layout}, got {found}")

    def save(self, number: int, part: Part) -> None:
        """Save the chunk that begins with a slice."""
        import numpy as np

        from ctxrecon.files import written_beside

        self._check_like_others(part)
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

    def begin_writing(self) -> None:
        """Record that this run has started to write its final outputs, which it may replace."""
        (self.folder / _WRITING).touch()

    def remove(self) -> None:
        """Delete the folder once the final outputs are written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"slice_{number:05d}.npz"


def _settings_of(folder: Path) -> dict[str, Any]:
    """Read the settings that the slices were made with."""
    from ctxrecon.files import read_json

    return read_json(
        folder / _SETTINGS,
        "the settings of a stopped run",
        "move its folder away, or give another --out",
    )


def _read_part(path: Path, shape: tuple[int, int, int]) -> Part:
    """Read and validate what :meth:`PartialFolder.save` wrote."""
    import numpy as np

    from ctxrecon.npz import Archive

    with Archive(path) as archive:
        names, seconds = archive.get("names"), archive.get("seconds")
        if names is None or names.dtype.kind != "U" or names.ndim != 2 or names.shape[1] != 2:
            raise InputError(f"{path}: expected pairs of names")
        if seconds is None or seconds.dtype != np.float64 or seconds.shape != names.shape[:1]:
            raise InputError(f"{path}: expected the seconds of each result")
        results = []
        for place, (name, key) in enumerate(names):
            images = _tensor(archive, f"images_{place}", shape)
            residual = _tensor(archive, f"residual_{place}", shape[:1])
            if images is None or residual is None:
                raise InputError(f"{path}: expected images and residual of each result")
            results.append(
                Result(
                    name=str(name),
                    key=str(key),
                    images=images,
                    residual=residual,
                    seconds=None if np.isnan(seconds[place]) else float(seconds[place]),
                    std=_tensor(archive, f"std_{place}", shape),
                )
            )
        return Part(results, _tensor(archive, "reference", shape))


def _tensor(archive: Archive, name: str, shape: tuple[int, ...]) -> Tensor | None:
    """Read an array of the archive and check its shape; return ``None`` if it is absent."""
    import numpy as np
    import torch

    values = archive.get(name)
    if values is None:
        return None
    if values.shape != shape or values.dtype not in (np.float32, np.float64, np.complex64):
        raise InputError(f"expected {name} of shape {shape}, got {values.dtype} {values.shape}")
    return torch.from_numpy(values)
