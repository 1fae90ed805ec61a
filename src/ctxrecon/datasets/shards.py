"""Shards: the prepared slices of one volume in a safetensors file, and a data set of them.

``<name>.safetensors`` contains the tensor ``images``: complex images ``(slices, 2, ny, nx)``
float32 as real and imaginary part, or magnitudes ``(slices, 1, ny, nx)`` float16, with the 99 %
quantile of the magnitude at 1. The header holds a JSON object under the key ``ctxrecon`` with
``metadata`` and ``prompts``, one per slice, ``prompt_form``, the ``source`` file's name and size in
bytes and, where known, ``subjects`` and sampling ``weights``, one per slice, ``origins`` and
``left_out``. It uses a single key because safetensors does not preserve the order of several, and
files should be reproducible byte by byte.
"""

from __future__ import annotations

import json
import math
import os
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
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

ImageKind: TypeAlias = Literal["complex", "magnitude"]
_KINDS: dict[tuple[int, str], ImageKind] = {(2, "F32"): "complex", (1, "F16"): "magnitude"}


@dataclass(frozen=True)
class ShardInfo:
    """Description of a shard.

    Attributes:
        shape: Shape of the images, ``(slices, channels, ny, nx)``.
        kind: ``"complex"`` (two channels) or ``"magnitude"`` (one).
        metadata: Metadata of each slice.
        prompts: Prompt of each slice, in ``prompt_form``.
        prompt_form: ``"fastmri"`` or ``"skm-tea"``, see :meth:`ScanMetadata.to_prompt`.
        source: Name of the file or folder that the shard was made from.
        source_bytes: Size of that file, or of the files in that folder.
        empty_slices: Number of slices of the volume that had no signal and were skipped.
        subjects: Person of each slice; empty if unknown.
        weights: Sampling weight of each slice relative to the others.
        origins: Distinct sources and licenses of the images.
        left_out: People of the volume whose slices were not selected.
    """

    shape: tuple[int, int, int, int]
    kind: ImageKind
    metadata: tuple[ScanMetadata, ...]
    prompts: tuple[str, ...]
    prompt_form: PromptForm
    source: str
    source_bytes: int
    empty_slices: int
    subjects: tuple[str, ...]
    weights: tuple[float, ...]
    origins: tuple[str, ...]
    left_out: tuple[str, ...]


def write_shard(
    path: Path,
    images: NDArray[np.float32] | NDArray[np.float16],
    metadata: Sequence[ScanMetadata],
    *,
    source: Path,
    source_bytes: int | None = None,
    prompt_form: PromptForm = "fastmri",
    empty_slices: int = 0,
    subjects: Sequence[str] = (),
    weights: Sequence[float] = (),
    origins: Sequence[str] = (),
    left_out: Sequence[str] = (),
) -> None:
    """Write a shard atomically, through a temporary file.

    Args:
        path: Output file ``<name>.safetensors``.
        images: Complex images ``(slices, 2, ny, nx)`` float32, or magnitudes
            ``(slices, 1, ny, nx)`` float16.
        metadata: Metadata of each slice.
        source: File or folder that the slices were made from.
        source_bytes: Size of the source (default: size of the file).
        prompt_form: Form of the stored prompts.
        empty_slices: Number of skipped slices.
        subjects: Person of each slice, if known.
        weights: Sampling weight of each slice (default: equal).
        origins: Distinct sources and licenses of the images.
        left_out: People of the volume whose slices were not selected.

    Raises:
        InputError: If the file cannot be written.
    """
    known = {"subjects": subjects, "weights": weights, "origins": origins, "left_out": left_out}
    notes = {
        "prompt_form": prompt_form,
        "source": source.name,
        "source_bytes": source.stat().st_size if source_bytes is None else source_bytes,
        "empty_slices": empty_slices,
        "metadata": json.loads(metadata_to_json(metadata)),
        "prompts": [item.to_prompt(prompt_form) for item in metadata],
        **{name: list(values) for name, values in known.items() if values},
    }
    with written_beside(path) as temporary:
        try:
            save_file({_TENSOR: images}, temporary, metadata={_KEY: json.dumps(notes)})
        except SafetensorError as error:
            raise InputError(f"cannot write {path}: {error}") from error
        with_umask_mode(temporary)


def open_shard(path: Path) -> Any:
    """Open a memory-mapped shard for reading."""
    try:
        return safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is truncated or not a safetensors file ({error}): remove it and prepare its "
            "volume again"
        ) from error


def read_shard_info(path: Path) -> ShardInfo:
    """Read the description of a shard and validate it against its tensor, which is not read."""
    file = open_shard(path)
    names = list(file.keys())
    if names != [_TENSOR]:
        raise InputError(f"{path}: expected a shard with one tensor {_TENSOR!r}, got {names}")
    tensor = file.get_slice(_TENSOR)
    shape, dtype = tuple(tensor.get_shape()), tensor.get_dtype()
    kind = _KINDS.get((shape[1], dtype)) if len(shape) == 4 and 0 not in shape else None
    if kind is None:
        raise InputError(
            f"{path}: expected images (slices, 2, ny, nx) of F32 or (slices, 1, ny, nx) of F16, "
            f"got {dtype} of shape {shape}"
        )
    text = (file.metadata() or {}).get(_KEY)
    if text is None:
        raise InputError(
            f"{path}: expected the slices' metadata in its header under {_KEY!r}, got none: it was "
            "not written by ctxrecon prepare"
        )
    try:
        notes = json.loads(text)
        info = ShardInfo(
            shape=shape,
            kind=kind,
            metadata=metadata_from_json(path, json.dumps(notes["metadata"])),
            prompts=tuple(str(prompt) for prompt in notes["prompts"]),
            prompt_form=notes["prompt_form"],
            source=str(notes["source"]),
            source_bytes=int(notes["source_bytes"]),
            empty_slices=int(notes["empty_slices"]),
            subjects=tuple(str(subject) for subject in notes.get("subjects", ())),
            weights=tuple(float(w) for w in notes.get("weights", ())) or (1.0,) * shape[0],
            origins=tuple(str(origin) for origin in notes.get("origins", ())),
            left_out=tuple(str(subject) for subject in notes.get("left_out", ())),
        )
    except InputError:
        raise
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:
        raise InputError(
            f"{path}: its header is not that of a shard ({type(error).__name__}: {error!s:.80})"
        ) from error
    if info.prompt_form not in ("fastmri", "skm-tea"):
        raise InputError(f"{path}: unknown prompt form {info.prompt_form!r}")
    per_slice = {
        "metadata": info.metadata,
        "prompts": info.prompts,
        "subjects": info.subjects or info.metadata,
        "weights": info.weights,
    }
    for name, values in per_slice.items():
        if len(values) != shape[0]:
            raise InputError(
                f"{path}: its header describes {len(values)} slices by {name}, but there are "
                f"{shape[0]} images: expected one each"
            )
    if not all(0 < weight < math.inf for weight in info.weights):
        raise InputError(f"{path}: its header contains weights that are not positive numbers")
    return info


def shard_files(folder: Path) -> list[Path]:
    """Return the shards of a folder by name, without hidden files, which are being written."""
    found = folder.glob(f"*{SUFFIX}")
    return sorted(path for path in found if not path.name.startswith("."))


class ShardSlices(Dataset[dict[str, Any]]):
    """Data set of the slices of a folder of shards, in the order of the file names.

    Each item is a dictionary with ``image``, float32 with the 99 % quantile of the magnitude at 1,
    either ``(2, ny, nx)`` as real and imaginary part or a magnitude ``(1, ny, nx)``, and
    ``metadata``, a :class:`ScanMetadata`. Only the requested slice is read.

    Args:
        folder: Folder written by ``ctxrecon prepare``.
        files: Shards of the folder to read (default: all).

    Attributes:
        kind: ``"complex"`` or ``"magnitude"``, the same for all shards.
        prompt_form: Form in which prompts are built from the metadata.
        subjects: Person of each slice; the shard's name if it names none.
        weights: Sampling weight of each slice relative to the others.
        origins: Distinct sources and licenses of the images.

    Raises:
        InputError: If the folder does not exist or has no shards, a shard is damaged, or complex
            images and magnitudes are mixed.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from ctxrecon.metadata import ScanMetadata
        >>> from ctxrecon.datasets import ShardSlices, write_shard
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path, images = Path(folder) / "a.safetensors", np.ones((3, 2, 32, 32), np.float32)
        ...     write_shard(path, images, [ScanMetadata(anatomy="knee")] * 3, source=Path(folder))
        ...     slices = ShardSlices(folder)
        ...     len(slices), slices[0]["image"].shape
        (3, torch.Size([2, 32, 32]))
    """

    def __init__(self, folder: str | os.PathLike[str], files: Sequence[Path] | None = None) -> None:
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"expected a folder of shards, found none at {folder}")
        self.folder = folder
        self.files = shard_files(folder) if files is None else list(files)
        if not self.files:
            raise InputError(
                f"expected shards (*{SUFFIX}) in {folder}, found none: make them with "
                "ctxrecon prepare"
            )
        infos = [read_shard_info(path) for path in self.files]
        self.prompt_form: PromptForm = infos[0].prompt_form
        self.kind: ImageKind = infos[0].kind
        for path, info in zip(self.files, infos, strict=True):
            if info.prompt_form != self.prompt_form:
                raise InputError(
                    f"{path} has prompts of the form {info.prompt_form}, {self.files[0]} of the "
                    f"form {self.prompt_form}: keep them in separate folders"
                )
            if info.kind != self.kind:
                raise InputError(
                    f"{path} contains {info.kind} images, {self.files[0]} {self.kind} ones: keep "
                    "them in separate folders"
                )
        self.subjects = tuple(
            subject
            for path, info in zip(self.files, infos, strict=True)
            for subject in info.subjects or (path.stem,) * info.shape[0]
        )
        self.weights = tuple(weight for info in infos for weight in info.weights)
        self.origins = tuple(dict.fromkeys(origin for info in infos for origin in info.origins))
        self._metadata = [item for info in infos for item in info.metadata]
        self._ends = list(accumulate(info.shape[0] for info in infos))
        self._chosen: Sequence[int] = range(len(self._metadata))
        self._forget()

    def split(self, share: float, *, seed: int = 0) -> tuple[ShardSlices, ShardSlices]:
        """Split into two sets without a common person.

        Args:
            share: Share of the people in the first set.
            seed: Random seed of the split.

        Raises:
            InputError: If the share leaves one of the sets empty.
        """
        people = list(dict.fromkeys(self.subjects))
        order = np.random.default_rng(seed).permutation(len(people))
        count = round(share * len(order))
        if not 0 < count < len(order):
            raise InputError(
                f"expected a share that splits {len(order)} people or volumes in two, got {share:g}"
            )
        first, second = (
            self.of_subjects({people[number] for number in part})
            for part in (order[:count], order[count:])
        )
        return first, second

    def of_subjects(self, subjects: Collection[str]) -> ShardSlices:
        """Return the slices of the given people only.

        Raises:
            InputError: If there are none.
        """
        here = [n for n, subject in enumerate(self.subjects) if subject in subjects]
        if not here:
            raise InputError(
                f"{self.folder} has no slices of the {len(subjects)} requested people, only of "
                f"{len(set(self.subjects))} others, such as {self.subjects[0]!r}: check the "
                "names"
            )
        chosen = [self._chosen[number] for number in here]
        files = sorted({bisect_right(self._ends, index) for index in chosen})
        part = ShardSlices(self.folder, [self.files[number] for number in files])
        # Shards without these people are not opened, so later slices move forward.
        starts = [0, *self._ends]
        new_starts = zip(files, [0, *part._ends[:-1]], strict=True)
        moved = {number: start - starts[number] for number, start in new_starts}
        part._chosen = [index + moved[bisect_right(self._ends, index)] for index in chosen]
        part.subjects = tuple(self.subjects[number] for number in here)
        part.weights = tuple(self.weights[number] for number in here)
        return part

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        index = self._chosen[index]
        shard = bisect_right(self._ends, index)
        first = self._ends[shard - 1] if shard else 0
        image = self._tensor(shard)[index - first]
        # Copy: the slice is a view of the mapped file, whose pages the caller would share.
        return {"image": image.to(torch.float32, copy=True), "metadata": self._metadata[index]}

    def _tensor(self, shard: int) -> Any:
        """Return the opened tensor of a shard; each process opens its own."""
        if self._process != os.getpid():
            self._forget()
        if shard not in self._open:
            self._open[shard] = open_shard(self.files[shard]).get_slice(_TENSOR)
        return self._open[shard]

    def _forget(self) -> None:
        self._open: dict[int, Any] = {}
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without open files, which cannot be sent to another process."""
        return {**self.__dict__, "_open": {}}


def check_complex_slices(slices: ShardSlices, what: str) -> ShardSlices:
    """Return the slices; raise if they are magnitudes.

    Args:
        slices: Slices to validate.
        what: Name of the model that is trained on them, such as ``"a reconstructor"``.

    Raises:
        InputError: If the images are magnitudes, which have no phase.
    """
    if slices.kind != "complex":
        raise InputError(
            f"{slices.folder} contains magnitude images, which have no phase, but {what} learns "
            "from complex ones: use a set of ctxrecon prepare fastmri, skmtea or labels"
        )
    return slices
