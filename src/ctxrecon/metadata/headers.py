"""Metadata from what data sets write: ISMRMRD headers and tables."""

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

    A parameter that the header lists for several echoes or contrasts is that of the first; one
    that is 0 where 0 is impossible was not filled in and stays unknown, and another impossible one
    is left out with a warning.

    Args:
        xml: the header; ``None`` when the file has none.
        acquisition: the file's ``acquisition`` attribute, as ``"CORPDFS_FBK"``; by default the
            header's protocol name.
        slice: slice number to note.

    Raises:
        InputError: when the XML is not well formed, declares a document type or entities, or is
            no ISMRMRD header.
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
    """The root of an ISMRMRD XML header, its tags without namespace.

    What converters leave before and after it is left out: byte order marks, NULs, white space.

    Raises:
        InputError: XML that is not well-formed, or that declares a document type or entities.
    """
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        plain = xml.strip(_AROUND_XML) if isinstance(xml, str) else xml.strip(_AROUND_BYTES)
        root: Element = fromstring(plain, forbid_dtd=True)
    except DefusedXmlException as error:
        raise InputError(
            "refused an XML header that declares a document type or entities, which can exhaust "
            f"memory or read other files ({type(error).__name__}); an ISMRMRD header has none"
        ) from error
    except (ParseError, ValueError, LookupError) as error:
        raise InputError(f"expected an ISMRMRD XML header, got malformed XML: {error}") from error
    for element in root.iter():
        element.tag = str(element.tag).rsplit("}", 1)[-1]
    return root


def _header_values(xml: str | bytes) -> dict[str, str]:
    """Text of every leaf of the header by its tag without namespace; the first one counts."""
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
    """A number of a header; ``None``, with a line in the log, where it is unknown or no number.

    Args:
        values: of the header by their names.
        name: of the number.
        zero_is_unknown: whether 0 says that the value was not filled in.
        source: what the header is, for the log.
    """
    text = values.get(name)
    if text is None or not str(text).strip():
        return None
    try:
        number = float(str(text))
    except ValueError:
        logger.warning(
            "expected %s in the %s as a number, got %s: left out", name, source, shown(text)
        )
        return None
    if number == 0 and zero_is_unknown:
        logger.info("%s is 0 in the %s: taken as unknown", name, source)
        return None
    return number


def plausible_metadata(source: str, **values: Any) -> ScanMetadata:
    """Metadata from a file, in which an impossible value is no reason to refuse the scan.

    Args:
        source: where the values come from, for the warning.
        values: fields of :class:`ScanMetadata`; one that it refuses is left out with a warning, and
            so are TR and TE that do not fit each other.
    """
    kept: dict[str, Any] = {}
    for name, value in values.items():
        try:
            ScanMetadata(**{name: value})
        except InputError as error:
            logger.warning("left out of the metadata of the %s: %s", source, error)
        else:
            kept[name] = value
    try:
        return ScanMetadata(**kept)
    except InputError as error:
        logger.warning("left TR and TE out of the metadata of the %s: %s", source, error)
        return ScanMetadata(**{**kept, "tr": None, "te": None})


def named_anatomy(body_part: str | None, acquisition: str | None) -> str | None:
    """The anatomy that a header names, or the acquisition of a fastMRI file implies."""
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
        logger.info("the acquisition %r names no known contrast: taken as unknown", name)
    return contrast


def from_fastmri_row(
    row: Mapping[str, str], slice: int | None = None, annotations: Annotations | None = None
) -> ScanMetadata:
    """Read one volume's row of a table of fastMRI headers, as meddlr publishes them.

    Impossible values are left out with a warning.

    Args:
        row: with ``fname``, ``acquisition``, ``systemFieldStrength_T``, ``TR``, ``TE``, ``TI``,
            ``flipAngle_deg``, ``sequence_type`` as text; a field may be empty.
        slice: the slice to describe.
        annotations: from :func:`read_fastmri_plus`; needs ``slice``.

    Raises:
        InputError: when a column is missing, or annotations come without a slice.
    """
    if missing := [name for name in _ROW_COLUMNS if name not in row]:
        raise InputError(f"expected the column {missing[0]!r} in the row, got {sorted(row)}")
    pathologies: tuple[str, ...] = ()
    if annotations is not None:
        if slice is None:
            raise InputError("annotations belong to slices: give the slice with them")
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

    Boxes are ignored, as in the training of the published weights; a finding with several boxes in
    a slice is listed as often. Findings of a whole study stand with its slice 0, as published.

    Args:
        path: a CSV file with the columns ``file``, ``slice`` and ``label``.

    Returns:
        ``(file without .h5, slice)`` → findings, in the order of the file.

    Raises:
        InputError: when the file or a column is missing, or a slice is no whole number.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no fastMRI+ table at {path}; expected a CSV file such as knee.csv")
    found: dict[tuple[str, int], list[str]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
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
