"""Metadata from DICOM headers."""

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

# Functional group (shared or per frame) and element of each value in an Enhanced MR image.
_ENHANCED_ELEMENTS = {
    "SequenceName": (None, "PulseSequenceName"),
    "RepetitionTime": ("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "InversionTime": ("MRModifierSequence", "InversionTimes"),
    "FlipAngle": ("MRTimingAndRelatedParametersSequence", "FlipAngle"),
    "BodyPartExamined": ("FrameAnatomySequence", "AnatomicRegionSequence"),
}


# Larger than uncompressed images with thousands of frames.
_MOST_INFLATED = 512 * 2**20


class DicomFile(BufferedReader):
    """Binary file whose reads never exceed its size, and whose inflated size is limited.

    pydicom requests as many bytes as an element states, and inflates everything that is left.

    Args:
        path: File.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(FileIO(str(path)))  # pydicom needs a string as name
        self._size = path.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        """Read at most as many bytes as are left."""
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
                f"{self.name}: {left} deflated bytes expand to more than {_MOST_INFLATED} bytes: "
                "the file is damaged or untrustworthy"
            )
        return deflated


@contextmanager
def pydicom_for(path: Path, what: str = "the DICOM file") -> Iterator[Any]:
    """Provide pydicom for reading a file, and convert its exceptions to InputError.

    Elements are decoded on access, so the header has to be evaluated inside the context.

    Args:
        path: File.
        what: Content that is read, for the message.

    Raises:
        InputError: If pydicom is not installed, or the file is damaged or not DICOM.
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
    except Exception as error:  # pydicom and zlib raise many types for invalid bytes
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: {what} cannot be read ({said:.200})") from error


def functional_group(header: Any, name: str, frame: int = 0) -> Any:
    """Return the item of a functional group for one frame of an Enhanced image, or ``None``.

    Args:
        header: Header of the image.
        name: Name of the group, such as ``"MREchoSequence"``.
        frame: Index of the frame.
    """
    of_frames = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    for groups in (*of_frames[frame : frame + 1], *shared[:1]):
        for item in (groups.get(name) or [])[:1]:
            return item
    return None


def from_dicom(path: str | Path, frame: int | None = None) -> ScanMetadata:
    """Read the metadata of a DICOM MR image from its header, without the pixel data.

    The contrast is inferred from the series description or the protocol name, the sequence from
    the scanner's sequence name, and the slice from the instance number (which counts from 1); all
    three are logged. For an Enhanced MR image, which has many frames, TR, TE, TI and flip angle are
    those of one frame, and the slice is its position in the stack. Implausible values are dropped
    with a warning. Times that must be in seconds, and field strengths that must be in gauss, are
    converted with a warning.

    Args:
        path: DICOM file.
        frame: Frame of an Enhanced MR image, from 0. By default the first frame is used, and the
            slice is unknown.

    Returns:
        The metadata of the image.

    Raises:
        InputError: If the file does not exist, is not a DICOM MR image, or lacks the frame.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist: expected a DICOM file")
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
        found = shown(values["Modality"]) if values["Modality"] else "none, it may be truncated"
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
    """Return an element of the header, or of one frame of an Enhanced MR image."""
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
    return getattr(value, "CodeMeaning", value)  # coded values have a meaning


def _is_spin_echo(values: dict[str, str], sequence: str | None) -> bool:
    return (
        sequence in ("TurboSpinEcho", "SpinEcho", "HASTE", "SPACE")
        or values["EchoPulseSequence"] == "SPIN"
        or "SE" in re.findall(r"[A-Z]+", values["ScanningSequence"])
    )


def _named_contrast(description: str) -> str | None:
    """Return the contrast in a series description such as ``t2_tse_sag_384``, if it is unique."""
    words = re.split(r"[^a-z0-9]+", description.lower())
    fat_suppressed = bool({"fs", "fatsat", "spair"} & set(words)) and "pd" in words
    named = {"PDFS"} if fat_suppressed else {c for w in words if (c := CONTRASTS.canonical(w))}
    if "FLAIR" in named:  # t2_flair
        named -= {"T2"}
    return named.pop() if len(named) == 1 else None


def _dicom_sequence(name: str) -> str | None:
    """Parse a vendor's sequence name, such as ``*tse2d1_11`` or ``*fl3d1``, or a plain name."""
    name = name.lstrip("*").lower()
    if name.startswith(("tse", "fse")):
        return "TurboSpinEcho"
    if re.match(r"fl(\d|ash)", name):  # not FLAIR
        return "Flash"
    return SEQUENCES.canonical(name)


def _dicom_age(text: str) -> float | None:
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,3})([DWMY]?)", text.upper(), re.ASCII)
    if match is None:
        logger.warning("ignored PatientAge %s: expected a value such as '048Y'", shown(text))
        return None
    if not match[2]:
        logger.info("PatientAge %s has no unit: years are assumed", text)
    return int(match[1]) / {"": 1, "Y": 1, "M": 12, "W": 52, "D": 365}[match[2]]
