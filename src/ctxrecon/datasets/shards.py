"""The shard: the prepared slices of one volume in one safetensors file, and their data set.

``<name>.safetensors`` holds the tensor ``images`` ``(slices, 2, ny, nx)`` float32, real and
imaginary part with the 99 % quantile of each magnitude at 1, and under the key ``ctxrecon`` of its
header a JSON object: ``metadata`` and ``prompts``, one a slice, ``prompt_form``, and the
``source`` file's name and size in bytes. (One key, because safetensors keeps no order of several,
and the same volume shall make the same bytes.)
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch.utils.data import Dataset

from ctxrecon.errors import InputError
from ctxrecon.files import written_beside
from ctxrecon.io._arrays import metadata_from_json, metadata_to_json
from ctxrecon.metadata import ScanMetadata
from ctxrecon.metadata.scan_metadata import PromptForm
from ctxrecon.permissions import with_umask_mode

SUFFIX = ".safetensors"
_TENSOR, _KEY = "images", "ctxrecon"


@dataclass(frozen=True)
class ShardInfo:
    """What a shard says about itself.

    Attributes:
        shape: ``(slices, 2, ny, nx)``.
        metadata: one for each slice.
        prompts: one for each slice, in ``prompt_form``.
        prompt_form: ``"fastmri"`` or ``"skm-tea"``, see :meth:`ScanMetadata.to_prompt`.
        source: name of the file that it was made from.
        source_bytes: size of that file.
        empty_slices: slices of the volume that had no signal and were left out.
    """

    shape: tuple[int, int, int, int]
    metadata: tuple[ScanMetadata, ...]
    prompts: tuple[str, ...]
    prompt_form: PromptForm
    source: str
    source_bytes: int
    empty_slices: int


def write_shard(
    path: Path,
    images: NDArray[np.float32],
    metadata: Sequence[ScanMetadata],
    *,
    source: Path,
    prompt_form: PromptForm = "fastmri",
    empty_slices: int = 0,
) -> None:
    """Write a shard beside and rename it, so that it is there whole or not at all.

    Args:
        path: ``<name>.safetensors``.
        images: ``(slices, 2, ny, nx)`` float32.
        metadata: one for each slice.
        source: the file that the slices were made from.
        prompt_form: form of the stored prompts.
        empty_slices: how many were left out.
    """
    notes = {
        "prompt_form": prompt_form,
        "source": source.name,
        "source_bytes": source.stat().st_size,
        "empty_slices": empty_slices,
        "metadata": json.loads(metadata_to_json(metadata)),
        "prompts": [item.to_prompt(prompt_form) for item in metadata],
    }
    with written_beside(path) as temporary:
        try:
            save_file({_TENSOR: images}, temporary, metadata={_KEY: json.dumps(notes)})
        except SafetensorError as error:
            raise InputError(f"cannot write {path}: {error}") from error
        with_umask_mode(temporary)


def open_shard(path: Path) -> Any:
    """A shard opened for reading, mapped into memory."""
    try:
        return safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is truncated or is no safetensors file ({error}): remove it and prepare its "
            "volume again"
        ) from error


def read_shard_info(path: Path) -> ShardInfo:
    """What a shard says about itself, checked against its tensor, which is not read."""
    file = open_shard(path)
    names = list(file.keys())
    if names != [_TENSOR]:
        raise InputError(f"{path}: expected a shard with one tensor {_TENSOR!r}, got {names}")
    tensor = file.get_slice(_TENSOR)
    shape, dtype = tuple(tensor.get_shape()), tensor.get_dtype()
    if len(shape) != 4 or shape[1] != 2 or 0 in shape or dtype != "F32":
        raise InputError(
            f"{path}: expected images (slices, 2, ny, nx) of F32, got {dtype} of shape {shape}"
        )
    text = (file.metadata() or {}).get(_KEY)
    if text is None:
        raise InputError(
            f"{path}: expected the slices' metadata in its header under {_KEY!r}, got none: it was "
            "not made by ctxrecon prepare"
        )
    try:
        notes = json.loads(text)
        info = ShardInfo(
            shape=shape,
            metadata=metadata_from_json(path, json.dumps(notes["metadata"])),
            prompts=tuple(str(prompt) for prompt in notes["prompts"]),
            prompt_form=notes["prompt_form"],
            source=str(notes["source"]),
            source_bytes=int(notes["source_bytes"]),
            empty_slices=int(notes["empty_slices"]),
        )
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{path}: its header is not that of a shard ({type(error).__name__}: {error!s:.80})"
        ) from error
    if info.prompt_form not in ("fastmri", "skm-tea"):
        raise InputError(f"{path}: unknown prompt form {info.prompt_form!r}")
    if not len(info.metadata) == len(info.prompts) == shape[0]:
        raise InputError(
            f"{path}: its header describes {len(info.metadata)} slices by metadata and "
            f"{len(info.prompts)} by prompts, its images are {shape[0]}: expected one each"
        )
    return info


def shard_files(folder: Path) -> list[Path]:
    """The shards of a folder by name; names that begin with a dot are files being written."""
    found = folder.glob(f"*{SUFFIX}")
    return sorted(path for path in found if not path.name.startswith("."))


class ShardSlices(Dataset[dict[str, Any]]):
    """The slices of a folder of shards, in the order of the files' names.

    Each item is a dictionary: ``image`` ``(2, ny, nx)`` float32, real and imaginary part with the
    99 % quantile of the magnitude at 1; ``metadata`` a :class:`ScanMetadata`. Only the slice that
    is asked for is read.

    Args:
        folder: written by ``ctxrecon prepare``.
        files: shards of it to read; all of them by default.

    Attributes:
        prompt_form: in which the prompts are to be made from the metadata.

    Raises:
        InputError: no folder, no shards, or one that is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str], files: Sequence[Path] | None = None) -> None:
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"expected a folder of shards, there is none at {folder}")
        self.folder = folder
        self.files = shard_files(folder) if files is None else list(files)
        if not self.files:
            raise InputError(
                f"expected shards (*{SUFFIX}) in {folder}, found none: make them with "
                "ctxrecon prepare"
            )
        infos = [read_shard_info(path) for path in self.files]
        self.prompt_form: PromptForm = infos[0].prompt_form
        for path, info in zip(self.files, infos, strict=True):
            if info.prompt_form != self.prompt_form:
                raise InputError(
                    f"{path} has prompts of the form {info.prompt_form}, {self.files[0]} of "
                    f"{self.prompt_form}: keep them in separate folders"
                )
        self._metadata = [item for info in infos for item in info.metadata]
        self._ends = list(accumulate(info.shape[0] for info in infos))
        self._forget()

    def split(self, share: float, *, seed: int = 0) -> tuple[ShardSlices, ShardSlices]:
        """Two sets without a common volume, the first with this share of the volumes.

        Raises:
            InputError: a share that leaves one of them empty.
        """
        order = np.random.default_rng(seed).permutation(len(self.files))
        count = round(share * len(order))
        if not 0 < count < len(order):
            raise InputError(
                f"expected a share that splits {len(order)} volumes in two, got {share:g}"
            )
        first, second = (
            ShardSlices(self.folder, [self.files[number] for number in sorted(part)])
            for part in (order[:count], order[count:])
        )
        return first, second

    def __len__(self) -> int:
        return len(self._metadata)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = bisect_right(self._ends, index)
        first = self._ends[shard - 1] if shard else 0
        image = self._tensor(shard)[index - first]
        # The slice is a view of the mapped file, whose pages would be shared with the caller.
        return {"image": image.clone(), "metadata": self._metadata[index]}

    def _tensor(self, shard: int) -> Any:
        """The opened tensor of a shard; each process opens its own."""
        if self._process != os.getpid():
            self._forget()
        if shard not in self._open:
            self._open[shard] = open_shard(self.files[shard]).get_slice(_TENSOR)
        return self._open[shard]

    def _forget(self) -> None:
        self._open: dict[int, Any] = {}
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        """Without the opened files, which cannot be sent to another process."""
        return {**self.__dict__, "_open": {}}
