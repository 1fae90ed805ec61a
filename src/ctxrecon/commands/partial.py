"""Slices that are done, kept on disk until all are, so that a stopped command can go on."""

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

    from ctxrecon.io.numpy_format import Archive

_SETTINGS = "settings.json"
_WRITING = "writing"


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
        from ctxrecon.files import write_json

        self.folder = folder
        self._layout: tuple[list[tuple[str, bool]], bool] | None = None
        if folder.is_dir() and not self._is_of(settings, overwrite):
            shutil.rmtree(folder)
        output_folder(folder)
        write_json(folder / _SETTINGS, settings)

    @staticmethod
    def was_writing(folder: Path, settings: Callable[[], Mapping[str, Any]]) -> bool:
        """Whether a run of these settings was stopped while it wrote what its slices give.

        Args:
            folder: of the slices.
            settings: called where a run was stopped so.

        Raises:
            InputError: the settings of that run cannot be read.
        """
        if not os.path.isfile(folder / _WRITING):  # False also where the name is too long
            return False
        before = _settings_of(folder)
        return all(before.get(name) == value for name, value in settings().items())

    def _is_of(self, settings: Mapping[str, Any], overwrite: bool) -> bool:
        """Whether its slices are of these settings; if not, it may be thrown away."""
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
                f"{self.folder} holds slices of a run with {name} {before.get(name)!s:.80}, this "
                f"one has {settings[name]!s:.80}: give --overwrite to drop them, or name "
                "another --out"
            )
        return False

    def __len__(self) -> int:
        """Chunks that are done."""
        return len(list(self.folder.glob("slice_*.npz")))

    def load(self, number: int, shape: tuple[int, int, int]) -> Part | None:
        """The chunk that begins with a slice, if it is done.

        Args:
            number: of the slice.
            shape: ``(batch, ny, nx)`` of its images.

        Raises:
            InputError: a file that is damaged, or of other slices or methods.
        """
        path = self._path(number)
        if not path.is_file():
            return None
        try:
            part = _read_part(path, shape)
            self._check_like_others(part)
        except (InputError, OSError) as error:
            raise InputError(
                f"{path} is damaged or holds other slices: remove it to do it again"
            ) from error
        return part

    def _check_like_others(self, part: Part) -> None:
        """Chunks are joined, so all of them hold the same."""
        layout = [(result.key, result.std is None) for result in part.results]
        found = (layout, part.reference is None)
        self._layout = self._layout or found
        if self._layout != found:
            raise InputError(f"expected {self._layout}, got {found}")

    def save(self, number: int, part: Part) -> None:
        """Keep the chunk that begins with a slice."""
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
        """Note that what the slices give is being written: from now on it is this run's own."""
        (self.folder / _WRITING).touch()

    def remove(self) -> None:
        """Throw the folder away: all slices are where they belong."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"slice_{number:05d}.npz"


def _settings_of(folder: Path) -> dict[str, Any]:
    """The settings that its slices were made with."""
    from ctxrecon.files import read_json

    return read_json(
        folder / _SETTINGS,
        "the settings of a run that was stopped",
        "move its folder away, or name another --out",
    )


def _read_part(path: Path, shape: tuple[int, int, int]) -> Part:
    """What :meth:`PartialFolder.save` wrote; anything else is refused."""
    import numpy as np

    from ctxrecon.io.numpy_format import Archive

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
    """An array of the archive, if it is there, once it is of that shape."""
    import numpy as np
    import torch

    values = archive.get(name)
    if values is None:
        return None
    if values.shape != shape or values.dtype not in (np.float32, np.float64, np.complex64):
        raise InputError(f"expected {name} of shape {shape}, got {values.dtype} {values.shape}")
    return torch.from_numpy(values)
