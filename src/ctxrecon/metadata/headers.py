"""Metadata from ISMRMRD headers and from tables published with data sets."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxrecon.errors import InputError
from ctxrecon.metadata.scan_metadata import ScanMetadata
from ctxrecon.metadata.text import shown
from ctxrecon.metadata.vocabulary import ANATOMIES, CONTRASTS, FASTMRI_ANATOMY, SEXES

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

logger = logging.getLogger(__name__)

_AROUND_XML = "\ufeff\0 \t\r\n"
_AROUND_BYTES = b"\0 \t\r\n"

_ROW_COLUMNS = (
    "fname",
    "acquisition",
    "systemFieldStrength_T",
    "TR",
    "TE",
    "TI",
    "flipAngle_deg",
    "sequence_type",
)

Annotations = Mapping[tuple[str, int], tuple[str, ...]]


def from_fastmri_header(
    xml: str | bytes | None, acquisition: str | None = None, slice: int | None = None
) -> ScanMetadata:
    """Read the ISMRMRD XML header of a fastMRI (or another ISMRMRD) file.

    If the header lists several echoes or contrasts, parameters are those of the first. A parameter
    of 0, where 0 is impossible, counts as unknown; other implausible values are dropped with a
    warning.

    Args:
        xml: Header, or ``None`` if the file has none.
        acquisition: The file's ``acquisition`` attribute, such as ``"CORPDFS_FBK"`` (default: the
            header's protocol name).
        slice: Slice number to include.

    Raises:
        InputError: If the XML is malformed, declares a document type or entities, or is not an
            ISMRMRD header.

    Example:
        >>> from ctxrecon.metadata import from_fastmri_header
        >>> parameters = "<sequenceParameters><TR>3150</TR></sequenceParameters>"
        >>> xml = f"<ismrmrdHeader>{parameters}</ismrmrdHeader>"
        >>> from_fastmri_header(xml, "CORPDFS_FBK", slice=20).to_prompt()
        'knee, Slice 20, PDFS, TR: 3150'
    """
    header = {} if xml is None else _header_values(xml)
    name = acquisition or header.get("protocolName")
    values: dict[str, Any] = {
        field: header_number(header, tag, zero_is_unknown)
        for field, tag, zero_is_unknown in (
            ("tr", "TR", True),
            ("te", "TE", False),
            ("ti", "TI", True),
            ("flip_angle", "flipAngle_deg", True),
            ("field_strength", "systemFieldStrength_T", True),
        )
    }
    return plausible_metadata(
        "header",
        anatomy=named_anatomy(header.get("bodyPartExamined"), name),
        slice=slice,
        contrast=_contrast(name),
        sequence=header.get("sequence_type"),
        sex=SEXES.canonical(header.get("patientGender", "")),
        **values,
    )


def parse_header_xml(xml: str | bytes) -> Element:
    """Parse an ISMRMRD XML header and return its root, with tags without namespace.

    Byte order marks, NULs and white space around the XML, which converters leave, are ignored.

    Raises:
        InputError: If the XML is malformed, or declares a document type or entities.
    """
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        plain = xml.strip(_AROUND_XML) if isinstance(xml, str) else xml.strip(_AROUND_BYTES)
        root: Element = fromstring(plain, forbid_dtd=True)
    except DefusedXmlException as error:
        raise InputError(
            "expected an ISMRMRD XML header, got one that declares a document type or entities, "
            f"which can exhaust memory or read other files ({type(error).__name__}): remove them"
        ) from error
    except (ParseError, ValueError, LookupError) as error:
        raise InputError(f"expected an ISMRMRD XML header, got malformed XML: {error}") from error
    for element in root.iter():
        element.tag = str(element.tag).rsplit("}", 1)[-1]
    return root


def _header_values(xml: str | bytes) -> dict[str, str]:
    """Return the text of all leaves by tag without namespace; the first occurrence counts."""
    root = parse_header_xml(xml)
    if root.tag != "ismrmrdHeader":
        raise InputError(f"expected an XML header <ismrmrdHeader>, got <{root.tag}>")
    values: dict[str, str] = {}
    for element in root.iter():
        text = (element.text or "").strip()
        if not len(element) and text:
            values.setdefault(element.tag, text)
    return values


def header_number(
    values: Mapping[str, Any], name: str, zero_is_unknown: bool, source: str = "header"
) -> float | None:
    """Return a number from a header, or ``None`` (which is logged) if it is missing or invalid.

    Args:
        values: Values of the header by name.
        name: Name of the number.
        zero_is_unknown: Whether 0 means that the value was not filled in.
        source: Kind of the header, for the log.
    """
    text = values.get(name)
    if text is None or not str(text).strip():
        return None
    try:
        number = float(str(text))
    except ValueError:
        logger.warning("ignored %s in the %s: expected a number, got %s", name, source, shown(text))
        return None
    if number == 0 and zero_is_unknown:
        logger.info("%s is 0 in the %s and counts as unknown", name, source)
        return None
    return number


def plausible_metadata(source: str, **values: Any) -> ScanMetadata:
    """Build metadata from a file's values, dropping implausible ones instead of failing.

    Args:
        source: Origin of the values, for the warning.
        values: Fields of :class:`ScanMetadata`. Invalid values, and TR and TE that contradict each
            other, are dropped with a warning.

    Example:
        >>> from ctxrecon.metadata import plausible_metadata
        >>> plausible_metadata("scan.h5", anatomy="knee", tr=-1).to_prompt()
        'knee'
    """
    kept: dict[str, Any] = {}
    for name, value in values.items():
        try:
            ScanMetadata(**{name: value})
        except InputError as error:
            logger.warning("dropped from the metadata of the %s: %s", source, error)
        else:
            kept[name] = value
    try:
        return ScanMetadata(**kept)
    except InputError as error:
        logger.warning("dropped TR and TE from the metadata of the %s: %s", source, error)
        return ScanMetadata(**{**kept, "tr": None, "te": None})


def named_anatomy(body_part: str | None, acquisition: str | None) -> str | None:
    """Return the anatomy that a header states, or that a fastMRI acquisition name implies."""
    if body_part and (known := ANATOMIES.canonical(body_part)):
        return known
    anatomy = FASTMRI_ANATOMY.get((acquisition or "").strip().upper())
    if anatomy:
        logger.info("inferred the anatomy %s from the acquisition %s", anatomy, acquisition)
    return anatomy


def _contrast(name: str | None) -> str | None:
    if not name or not name.strip():
        return None
    contrast = CONTRASTS.canonical(name)
    if contrast is None:
        logger.info("the acquisition %r contains no known contrast, which stays unknown", name)
    return contrast


def from_fastmri_row(
    row: Mapping[str, str], slice: int | None = None, annotations: Annotations | None = None
) -> ScanMetadata:
    """Read one volume's row of the table of fastMRI headers that meddlr publishes.

    Implausible values are dropped with a warning.

    Args:
        row: Text values of ``fname``, ``acquisition``, ``systemFieldStrength_T``, ``TR``, ``TE``,
            ``TI``, ``flipAngle_deg`` and ``sequence_type``; a field may be empty.
        slice: Slice number to describe.
        annotations: Annotations from :func:`read_fastmri_plus`; they require ``slice``.

    Raises:
        InputError: If a column is missing, or annotations are given without a slice.

    Example:
        >>> from ctxrecon.metadata import from_fastmri_row
        >>> row = dict.fromkeys(["systemFieldStrength_T", "TI", "flipAngle_deg"], "")
        >>> row |= {"fname": "file1.h5", "acquisition": "CORPD_FBK", "TR": "2200", "TE": "27"}
        >>> from_fastmri_row({**row, "sequence_type": "TurboSpinEcho"}).to_prompt()
        'knee, PD, Sequence: TurboSpinEcho, TR: 2200, TE: 27'
    """
    if missing := [name for name in _ROW_COLUMNS if name not in row]:
        raise InputError(f"expected the column {missing[0]!r} in the row, got {sorted(row)}")
    pathologies: tuple[str, ...] = ()
    if annotations is not None:
        if slice is None:
            raise InputError("annotations belong to slices: give the slice along with them")
        pathologies = annotations.get((str(row["fname"]).removesuffix(".h5"), slice), ())
    return plausible_metadata(
        f"row of {row['fname']}",
        anatomy=named_anatomy(None, row["acquisition"]),
        slice=slice,
        contrast=_contrast(row["acquisition"]),
        pathologies=pathologies,
        sequence=row["sequence_type"] or None,
        tr=header_number(row, "TR", True, "row"),
        te=header_number(row, "TE", False, "row"),
        ti=header_number(row, "TI", True, "row"),
        flip_angle=header_number(row, "flipAngle_deg", True, "row"),
        field_strength=header_number(row, "systemFieldStrength_T", True, "row"),
    )


def read_fastmri_plus(path: str | Path) -> dict[tuple[str, int], tuple[str, ...]]:
    """Read a table of fastMRI+ annotations (Zhao et al., arXiv:2109.03812).

    Bounding boxes are ignored, as in the training of the published weights: a finding with several
    boxes in a slice is listed several times. Findings of a whole study belong to its slice 0, as
    published.

    Args:
        path: CSV file with the columns ``file``, ``slice`` and ``label``.

    Returns:
        Findings by ``(file without .h5, slice)``, in the order of the file.

    Raises:
        InputError: If the file or a column is missing, or a slice is not a whole number.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from ctxrecon.metadata import read_fastmri_plus
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "knee.csv"
        ...     _ = path.write_text("file,slice,label\\nfile1,20,Meniscus Tear\\n")
        ...     read_fastmri_plus(path)
        {('file1', 20): ('Meniscus Tear',)}
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no fastMRI+ table at {path}: expected a CSV file such as knee.csv")
    found: dict[tuple[str, int], list[str]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if missing := [name for name in ("file", "slice", "label") if name not in columns]:
                raise InputError(f"{path}: expected the column {missing[0]!r}, got {list(columns)}")
            for row in reader:
                key, label = _annotation(row, f"{path}, line {reader.line_num}")
                found.setdefault(key, []).append(label)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a CSV file in UTF-8 ({error})") from error
    return {key: tuple(labels) for key, labels in found.items()}


def _annotation(row: Mapping[str, str | None], where: str) -> tuple[tuple[str, int], str]:
    name, slice, label = row["file"] or "", row["slice"] or "", (row["label"] or "").strip()
    if not name or not slice.isdecimal():
        raise InputError(
            f"{where}: expected a file and a whole slice number, got {name!r} and {slice!r}"
        )
    if not label:
        raise InputError(f"{where}: expected a finding in the column 'label', got nothing")
    return (name.removesuffix(".h5"), int(slice)), label
