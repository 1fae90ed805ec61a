"""Metadata from DICOM files."""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any

from ctxrecon.errors import InputError
from ctxrecon.metadata.headers import header_number, named_anatomy, plausible_metadata
from ctxrecon.metadata.scan_metadata import ScanMetadata
from ctxrecon.metadata.text import shown
from ctxrecon.metadata.units import Times, in_milliseconds, in_tesla
from ctxrecon.metadata.vocabulary import CONTRASTS, SEQUENCES, SEXES

logger = logging.getLogger(__name__)

_DICOM_ELEMENTS = (
    "Modality",
    "SeriesDescription",
    "ProtocolName",
    "SequenceName",
    "ScanningSequence",
    "EchoPulseSequence",
    "BodyPartExamined",
    "InstanceNumber",
    "RepetitionTime",
    "EchoTime",
    "InversionTime",
    "FlipAngle",
    "MagneticFieldStrength",
    "PatientAge",
    "PatientSex",
)

# Where an Enhanced MR image keeps them: functional groups, shared by all frames or of each one.
_ENHANCED_ELEMENTS = {
    "SequenceName": (None, "PulseSequenceName"),
    "RepetitionTime": ("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "InversionTime": ("MRModifierSequence", "InversionTimes"),
    "FlipAngle": ("MRTimingAndRelatedParametersSequence", "FlipAngle"),
    "BodyPartExamined": ("FrameAnatomySequence", "AnatomicRegionSequence"),
}


# Uncompressed images of thousands of frames are smaller.
_MOST_INFLATED = 512 * 2**20


class DicomFile(BufferedReader):
    """A file that gives no more memory away than it has bytes, and inflates to no more than that.

    pydicom asks for as many bytes as an element claims, and for all that is left to inflate it.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(FileIO(str(path)))  # pydicom joins its name to text
        self._size = path.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        """At most as many bytes as are left."""
        left = max(self._size - self.tell(), 0)
        if size is not None and size >= 0:
            return super().read(min(size, left))
        deflated = super().read(left)
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        count, rest = 0, deflated
        while rest and count <= _MOST_INFLATED:
            count += len(stream.decompress(rest, 2**20))
            rest = stream.unconsumed_tail
        if count > _MOST_INFLATED:
            raise InputError(
                f"{self.name}: {left} deflated bytes become more than {_MOST_INFLATED} bytes: the "
                "file is damaged or not to be trusted"
            )
        return deflated


@contextmanager
def pydicom_for(path: Path, what: str = "the DICOM file") -> Iterator[Any]:
    """Give pydicom to read a file with, and make what it raises of damage an error of ours.

    It decodes an element when it is asked for, so that what looks at a header belongs inside.

    Args:
        path: of the file.
        what: is read, for the message.

    Raises:
        InputError: pydicom is not installed, or the file is damaged or no DICOM file.
    """
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError as error:
        raise InputError(f"{path} needs pydicom, install it with pip install pydicom") from error
    try:
        yield pydicom
    except InputError:
        raise
    except (InvalidDicomError, EOFError) as error:
        raise InputError(
            f"{path}: expected a DICOM file, got something else ({error!s:.200})"
        ) from error
    except Exception as error:  # whatever pydicom and zlib raise for bytes that make no sense
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: {what} cannot be read ({said:.200})") from error


def functional_group(header: Any, name: str, frame: int = 0) -> Any:
    """The item of a functional group of a frame of an Enhanced image, ``None`` where it has none.

    Args:
        header: of the image.
        name: of the group, such as ``"MREchoSequence"``.
        frame: its index.
    """
    of_frames = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    for groups in (*of_frames[frame : frame + 1], *shared[:1]):
        for item in (groups.get(name) or [])[:1]:
            return item
    return None


def from_dicom(path: str | Path, frame: int | None = None) -> ScanMetadata:
    """Read the header of a DICOM MR image; pixel data are not read.

    The contrast comes from the series description or protocol name where it names one, the
    sequence from the scanner's sequence name, the slice from the instance number (which counts
    from 1). All three are logged, as they are inferred. Of an Enhanced MR image, which holds many
    frames, TR, TE, TI and flip angle are those of one frame, and the slice is its place in the
    stack. Impossible values are left out with a warning; times that can only be in seconds and
    fields that can only be in gauss are converted, with a warning too.

    Args:
        path: of the file.
        frame: of an Enhanced MR image, from 0; by default the first, and the slice is unknown.

    Raises:
        InputError: when the file is missing, is no DICOM file, is no MR image, or has no such
            frame.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no DICOM file at {path}")
    with pydicom_for(path) as pydicom:
        with DicomFile(path) as file:
            header = pydicom.dcmread(file, stop_before_pixels=True)
        frames = header.get("PerFrameFunctionalGroupsSequence")
        if frame is not None and not 0 <= frame < len(frames or []):
            raise InputError(f"{path} has {len(frames or [])} frames: there is no frame {frame}")
        read = {name: _dicom_element(header, name, frame or 0) for name in _DICOM_ELEMENTS}
        values = {name: "" if v is None else str(v).strip() for name, v in read.items()}
        number_in_stack = values["InstanceNumber"] if frames is None else ""
        if frame is not None:
            stack = functional_group(header, "FrameContentSequence", frame)
            number_in_stack = "" if stack is None else str(stack.get("InStackPositionNumber") or "")
    if values["Modality"] != "MR":
        found = shown(values["Modality"]) if values["Modality"] else "none, it may be cut short"
        raise InputError(f"{path}: expected modality MR, got {found}")
    contrast = next(
        filter(None, (_named_contrast(values[n]) for n in ("SeriesDescription", "ProtocolName"))),
        None,
    )
    known = number_in_stack.isdecimal() and int(number_in_stack) > 0
    slice = int(number_in_stack) - 1 if known else None
    sequence = _dicom_sequence(values["SequenceName"])
    logger.info("%s: inferred contrast %s, sequence %s, slice %s", path, contrast, sequence, slice)

    def number(name: str, zero_is_unknown: bool = True) -> float | None:
        return header_number(values, name, zero_is_unknown, "DICOM header")

    source = f"DICOM file {path}"
    times = Times(number("RepetitionTime"), number("EchoTime", False), number("InversionTime"))
    times = in_milliseconds(times, spin_echo=_is_spin_echo(values, sequence), source=source)
    return plausible_metadata(
        source,
        anatomy=named_anatomy(values["BodyPartExamined"], None),
        slice=slice,
        contrast=contrast,
        sequence=sequence,
        **times._asdict(),
        flip_angle=number("FlipAngle"),
        age=_dicom_age(values["PatientAge"]),
        sex=SEXES.canonical(values["PatientSex"]),
        field_strength=in_tesla(number("MagneticFieldStrength"), source=source),
    )


def _dicom_element(header: Any, name: str, frame: int) -> Any:
    """An element of the header, or of a frame of an Enhanced MR image."""
    value = header.get(name)
    if value is not None or name not in _ENHANCED_ELEMENTS:
        return value
    group, element = _ENHANCED_ELEMENTS[name]
    if group is None:
        return header.get(element)
    item = functional_group(header, group, frame)
    value = None if item is None else item.get(element)
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = next(iter(value), None)
    return getattr(value, "CodeMeaning", value)  # of coded values


def _is_spin_echo(values: dict[str, str], sequence: str | None) -> bool:
    return (
        sequence in ("TurboSpinEcho", "SpinEcho", "HASTE", "SPACE")
        or values["EchoPulseSequence"] == "SPIN"
        or "SE" in re.findall(r"[A-Z]+", values["ScanningSequence"])
    )


def _named_contrast(description: str) -> str | None:
    """The contrast that a series description such as ``t2_tse_sag_384`` names, if one only."""
    words = re.split(r"[^a-z0-9]+", description.lower())
    fat_suppressed = bool({"fs", "fatsat", "spair"} & set(words)) and "pd" in words
    named = {"PDFS"} if fat_suppressed else {c for w in words if (c := CONTRASTS.canonical(w))}
    if "FLAIR" in named:  # t2_flair
        named -= {"T2"}
    return named.pop() if len(named) == 1 else None


def _dicom_sequence(name: str) -> str | None:
    """Vendor sequence names: ``*tse2d1_11``, ``*fl3d1`` (Siemens) or a plain name."""
    name = name.lstrip("*").lower()
    for start, sequence in (("tse", "TurboSpinEcho"), ("fse", "TurboSpinEcho"), ("fl", "Flash")):
        if name.startswith(start):
            return sequence
    return SEQUENCES.canonical(name)


def _dicom_age(text: str) -> float | None:
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,3})([DWMY]?)", text.upper(), re.ASCII)
    if match is None:
        logger.warning("expected PatientAge as in '048Y', got %s: left out", shown(text))
        return None
    if not match[2]:
        logger.info("PatientAge %s has no unit: taken as years", text)
    return int(match[1]) / {"": 1, "Y": 1, "M": 12, "W": 52, "D": 365}[match[2]]
