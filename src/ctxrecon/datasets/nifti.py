"""NIfTI volumes with the metadata of BIDS sidecar files."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxrecon.datasets.volumes import Volume, upright
from ctxrecon.errors import InputError
from ctxrecon.files import read_json
from ctxrecon.metadata import ScanMetadata, plausible_metadata
from ctxrecon.metadata.headers import header_number, named_anatomy
from ctxrecon.metadata.vocabulary import CONTRASTS, SEQUENCES
from ctxrecon.nifti import read_stored

logger = logging.getLogger(__name__)

SUFFIXES = (".nii.gz", ".nii")
_DESCRIPTION = "dataset_description.json"
_MOST_NOTES = 16 * 2**20
_SUBJECT = re.compile(r"sub-[0-9A-Za-z]+")
_BIDS = re.compile(r"sub-[0-9A-Za-z]+((?:_[A-Za-z]+-[0-9A-Za-z+]+)*)_([0-9A-Za-z]+)")
# Suffixes of anatomical images (BIDS 1.9, "Magnetic Resonance Imaging data") with a contrast.
_CONTRASTS = {
    **{"T1w": "T1", "T2w": "T2", "PDw": "PD", "FLAIR": "FLAIR", "T2starw": "T2*"},
    **{"inplaneT1": "T1", "inplaneT2": "T2", "angio": "TOF"},
}
# Metadata field -> sidecar key, factor (BIDS times are in seconds), and whether 0 means unknown.
_NUMBERS = {
    "tr": ("RepetitionTime", 1000.0, True),
    "te": ("EchoTime", 1000.0, False),
    "ti": ("InversionTime", 1000.0, True),
    "flip_angle": ("FlipAngle", 1.0, True),
    "field_strength": ("MagneticFieldStrength", 1.0, True),
}


@dataclass(frozen=True)
class BidsName:
    """Parts of a BIDS file name.

    Attributes:
        entities: Key-value pairs, such as ``part`` → ``mag``.
        suffix: Suffix, such as ``T1w``.
    """

    entities: dict[str, str]
    suffix: str

    @classmethod
    def read(cls, name: str) -> BidsName | None:
        """Parse a name without extension; ``None`` if it does not follow BIDS."""
        match = _BIDS.fullmatch(name)
        if match is None:
            return None
        pairs = (part.split("-", 1) for part in match[1].split("_") if part)
        return cls(dict(pairs), match[2])

    @property
    def contrast(self) -> str | None:
        """Contrast in the vocabulary of :class:`ScanMetadata`."""
        contrast = _CONTRASTS.get(self.suffix)
        return "T1POST" if contrast == "T1" and "ce" in self.entities else contrast

    @property
    def is_anatomical(self) -> bool:
        """``True`` for a magnitude image of anatomy, not a map, mask or time series."""
        return self.suffix in _CONTRASTS and self.entities.get("part", "mag") == "mag"


def stem(path: Path) -> str:
    """Return the file name without its suffix."""
    ending = next(ending for ending in SUFFIXES if path.name.lower().endswith(ending))
    return path.name[: -len(ending)]


def load_volume(path: Path) -> Volume:
    """Load the magnitude volume of a NIfTI file.

    Raises:
        InputError: If nibabel is missing, the file is damaged, or it is not a magnitude volume.
    """
    stored = read_stored(path)
    return upright(path, stored.data, stored.affine)


def sidecar(path: Path) -> Path | None:
    """Return the ``.json`` next to a NIfTI file, or ``None``."""
    beside = path.with_name(f"{stem(path)}.json")
    return beside if beside.is_file() else None


def read_metadata(path: Path) -> ScanMetadata:
    """Read the metadata of a NIfTI file from its sidecar and name.

    Implausible values are omitted with a warning; inferred values are logged.

    Raises:
        InputError: If the sidecar cannot be read.
    """
    name, beside = BidsName.read(stem(path)), sidecar(path)
    notes = {} if beside is None else _read_notes(beside, "the notes of an image")
    values: dict[str, Any] = {}
    for field, (key, factor, zero_is_unknown) in _NUMBERS.items():
        number = header_number(notes, key, zero_is_unknown, f"notes {beside}")
        values[field] = None if number is None else number * factor
    contrast = _named_contrast(stem(path)) if name is None else name.contrast
    sequence = _sequence(notes)
    if contrast or sequence:
        logger.info("%s: inferred contrast %s, sequence %s", path, contrast, sequence)
    part = notes.get("BodyPartExamined")
    return plausible_metadata(
        f"volume {path}",
        anatomy=named_anatomy(part if isinstance(part, str) else None, None),
        contrast=contrast,
        sequence=sequence,
        **values,
    )


def _named_contrast(name: str) -> str | None:
    """Return the contrast named by a word of the file name, if it is unambiguous."""
    named = {found for word in re.split(r"[\s._-]+", name) if (found := CONTRASTS.canonical(word))}
    return named.pop() if len(named) == 1 else None


def _sequence(notes: dict[str, Any]) -> str | None:
    """Return the sequence named by the sidecar or implied by its DICOM codes."""
    for key in ("PulseSequenceType", "PulseSequenceDetails", "SequenceName"):
        text = notes.get(key)
        if isinstance(text, str) and (known := SEQUENCES.canonical(text)):
            return known
    scanning, variant = _codes(notes, "ScanningSequence"), _codes(notes, "SequenceVariant")
    if "EP" in scanning:
        return "EPI"
    if "SE" in scanning:
        train = header_number(notes, "EchoTrainLength", True, "notes")
        return "TurboSpinEcho" if train is not None and train > 1 else "SpinEcho"
    if "GR" in scanning:
        return "MPRAGE" if "IR" in scanning else "Flash" if "SP" in variant else "GRE"
    return None


def _codes(notes: dict[str, Any], key: str) -> set[str]:
    """Return codes given as a list, or joined as ``GR\\IR`` or ``GR_IR``."""
    value = notes.get(key)
    parts: Iterable[Any] = value if isinstance(value, list) else [value]
    return {code for part in parts if isinstance(part, str) for code in re.split(r"\W|_", part)}


def person(path: Path) -> str:
    """Return an identifier of the person: ``sub-XX`` of BIDS, with the data set's folder if known.

    For other names, it is the name without words for the contrast, so that all contrasts of a
    person share it; if nothing is left, it is the name of the folder.
    """
    subject, root = _bids_place(path)
    if subject is not None:
        return subject if root is None else f"{root.name}_{subject}"
    words = re.split(r"([\s._-]+)", stem(path))
    kept = [word for word in words if CONTRASTS.canonical(word) is None]
    found = re.sub(r"[\s._-]+", "_", "".join(kept)).strip("_") or path.parent.resolve().name
    logger.info("%s has no BIDS name (sub-XX): using the person identifier %s", path, found)
    return found


def _bids_place(path: Path) -> tuple[str | None, Path | None]:
    """Return ``sub-XX`` from the file or a folder name, and the data set's folder."""
    match = _SUBJECT.match(path.name)
    subject, parent = match[0] if match else None, path.parent.resolve()
    for folder in (parent, *parent.parents):
        if folder.name == subject or (subject is None and _SUBJECT.fullmatch(folder.name)):
            return folder.name, folder.parent
    return subject, None


def origin(path: Path) -> str | None:
    """Return name and license of the BIDS data set of a file, if specified."""
    _, root = _bids_place(path)
    description = None if root is None else root / _DESCRIPTION
    if description is None or not description.is_file():
        return None
    notes = _read_notes(description, "the description of a data set")
    stated = {key: notes.get(key) for key in ("Name", "DatasetDOI", "License")}
    words = {key: " ".join(v.split()) for key, v in stated.items() if isinstance(v, str) and v}
    title = ", ".join(words[key] for key in ("Name", "DatasetDOI") if key in words)
    license_ = words.get("License", "license not given")
    return f"{title} ({license_})" if title else None


def _read_notes(path: Path, what: str) -> dict[str, Any]:
    if path.stat().st_size > _MOST_NOTES:
        raise InputError(f"{path} is larger than {what} can be: check that it is the right file")
    return read_json(path, what, "fix or remove it")
