"""Encoding geometry from an ISMRMRD XML header, which fastMRI files contain as well."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ctxrecon.errors import InputError
from ctxrecon.metadata.headers import parse_header_xml

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

logger = logging.getLogger(__name__)

NON_CARTESIAN = ("radial", "goldenangle", "spiral", "other")


@dataclass(frozen=True)
class EncodingHeader:
    """Encoding parameters; sizes are ordered (readout x, phase encode y, partition z).

    Attributes:
        encoded_matrix: Size of the measured grid, including readout oversampling.
        recon_matrix: Size of the scanner's image, which may be interpolated.
        encoded_fov: Field of view of the measured grid in mm, or ``None`` if it is not stated.
        recon_fov: Field of view of the scanner's image in mm, or ``None``.
        center: Phase-encode line of zero frequency, or ``None`` if it is not stated.
        maximum: Last phase-encode line, or ``None`` if it is not stated.
        partition_center: Partition of zero frequency, or ``None`` if it is not stated.
        trajectory: Kind of trajectory: ``"cartesian"``, ``"radial"``, …
        calibration_mode: Parallel imaging calibration: ``"embedded"``, ``"separate"``, … or
            ``None``.
        echo_times: TE in ms of each contrast, ``None`` for one that is not a number.
        noise_bandwidth: Relative receiver noise bandwidth, or ``None``.
        vendor: Vendor of the scanner, or ``None``.
    """

    encoded_matrix: tuple[int, int, int]
    recon_matrix: tuple[int, int, int]
    encoded_fov: tuple[float, float, float] | None
    recon_fov: tuple[float, float, float] | None
    center: int | None
    maximum: int | None
    partition_center: int | None
    trajectory: str
    calibration_mode: str | None
    echo_times: tuple[float | None, ...]
    noise_bandwidth: float | None
    vendor: str | None

    def readout_size(self, ny: int) -> int:
        """Return how many pixels of a readout with ``ny`` samples lie in the image's FOV.

        Uses the fields of view, because the scanner's matrix may be interpolated.
        """
        return self.image_size(0, ny)

    def image_matrix(self) -> tuple[int, int]:
        """Return the image size ``(ny, nx)`` in pixels of the encoded size."""
        encoded_y, encoded_x, _ = self.encoded_matrix
        return self.image_size(0, encoded_y), self.image_size(1, encoded_x)

    def image_size(self, axis: int, samples: int) -> int:
        """Return how many pixels of an axis with ``samples`` samples lie in the image's FOV."""
        if self.encoded_fov is not None and self.recon_fov is not None:
            kept = round(samples * self.recon_fov[axis] / self.encoded_fov[axis])
        else:
            kept = self.recon_matrix[axis]
        return min(kept, samples)

    def extent(self, axis: int) -> float:
        """Return the encoded field of view in mm, or in samples if the header states none."""
        return float((self.encoded_fov or self.encoded_matrix)[axis])

    @property
    def is_non_cartesian(self) -> bool:
        """True if readouts have explicit k-space trajectories."""
        return self.trajectory in NON_CARTESIAN

    def voxel_size(self, ny: int, nx: int) -> tuple[float, float, float] | None:
        """Return the voxel size (ny, nx, slice) in mm of an image from ``ny`` by ``nx`` samples.

        ``ny`` includes readout oversampling, whether or not it is cropped afterwards.
        """
        if self.encoded_fov is None:
            return None
        fov, matrix = self.encoded_fov[2], self.encoded_matrix[2]
        if self.recon_fov is not None:
            fov, matrix = self.recon_fov[2], self.recon_matrix[2]
        return (self.encoded_fov[0] / ny, self.encoded_fov[1] / nx, fov / matrix)


def check_cartesian(path: Path, header: EncodingHeader) -> None:
    """Validate that the samples lie on a Cartesian grid."""
    if header.trajectory != "cartesian":
        raise InputError(
            f"{path}: expected a Cartesian trajectory, got {header.trajectory[:40]!r}: "
            "grid the data first"
        )


def parse_header(path: Path, xml: str, space: int = 0) -> EncodingHeader:
    """Parse one encoding of an ISMRMRD XML header, rejecting entities and invalid sizes.

    Optional numbers that are invalid are dropped with a warning.

    Args:
        path: File name for messages.
        xml: Header.
        space: Index of the encoding.

    Raises:
        InputError: If the header is not valid XML, or has no valid encoding or matrix sizes.
    """
    root = parse_xml(path, xml)
    encodings = root.findall("encoding")
    if not encodings:
        raise InputError(
            f"{path}: its ISMRMRD header has no <encoding>, so the matrix is unknown: convert the "
            "raw data again"
        )
    if space >= len(encodings):
        raise InputError(
            f"{path}: its readouts use encoding space {space}, but its header describes only "
            f"{len(encodings)}: convert the raw data again"
        )
    encoding = encodings[space]

    encoded = _numbers(path, encoding, "encodedSpace", "matrixSize")
    recon = _numbers(path, encoding, "reconSpace", "matrixSize")
    if encoded is None or recon is None:
        raise InputError(
            f"{path}: its ISMRMRD header does not state the encoded and recon matrix sizes"
        )
    matrices = [tuple(int(n) for n in matrix) for matrix in (encoded, recon)]
    if any(not 1 <= n <= 65535 for matrix in matrices for n in matrix):
        raise InputError(
            f"{path}: expected matrix sizes from 1 to 65535 in its ISMRMRD header, got "
            f"{matrices[0]} and {matrices[1]}"
        )
    limits = {
        (step, name): _number(
            path, encoding, "encodingLimits", f"kspace_encoding_step_{step}", name
        )
        for step, name in ((1, "center"), (1, "maximum"), (2, "center"))
    }
    bandwidth = _optional_number(
        path,
        _text(root, "acquisitionSystemInformation", "relativeReceiverNoiseBandwidth"),
        "relativeReceiverNoiseBandwidth",
    )
    if bandwidth is not None and bandwidth <= 0:
        logger.warning("%s: ignored a relative noise bandwidth of %g", path, bandwidth)
        bandwidth = None
    return EncodingHeader(
        encoded_matrix=(matrices[0][0], matrices[0][1], matrices[0][2]),
        recon_matrix=(matrices[1][0], matrices[1][1], matrices[1][2]),
        encoded_fov=_field_of_view(path, encoding, "encodedSpace"),
        recon_fov=_field_of_view(path, encoding, "reconSpace"),
        center=_whole(limits[1, "center"]),
        maximum=_whole(limits[1, "maximum"]),
        partition_center=_whole(limits[2, "center"]),
        trajectory=(_text(encoding, "trajectory") or "cartesian").lower(),
        calibration_mode=_text(encoding, "parallelImaging", "calibrationMode"),
        echo_times=tuple(
            _optional_number(path, element.text, "TE")
            for element in root.findall("sequenceParameters/TE")
        ),
        noise_bandwidth=bandwidth,
        vendor=_text(root, "acquisitionSystemInformation", "systemVendor"),
    )


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def parse_xml(path: Path, xml: str) -> Element:
    """Parse an ISMRMRD header and return its root, with tags without their namespace."""
    try:
        return parse_header_xml(xml)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _text(element: Element, *names: str) -> str | None:
    found = element.find("/".join(names))
    return None if found is None or not (found.text or "").strip() else str(found.text).strip()


def _number(path: Path, element: Element, *names: str) -> float | None:
    text = _text(element, *names)
    return None if text is None else _parse_number(path, text, names[-1])


def _parse_number(path: Path, text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < 1e9:
        raise InputError(
            f"{path}: expected a number in <{name}> of its ISMRMRD header, got {text[:40]!r}"
        )
    return value


def _optional_number(path: Path, text: str | None, name: str) -> float | None:
    """Return a number, or ``None`` with a warning if the text is not a number."""
    if text is None:
        return None
    try:
        return _parse_number(path, text, name)
    except InputError as error:
        logger.warning("%s: ignored", error)
        return None


def _numbers(path: Path, element: Element, *names: str) -> tuple[float, float, float] | None:
    x, y, z = (_number(path, element, *names, axis) for axis in "xyz")
    return None if x is None or y is None or z is None else (x, y, z)


def _field_of_view(path: Path, encoding: Element, space: str) -> tuple[float, float, float] | None:
    """Return the field of view in mm, or ``None`` (with a warning if it is invalid)."""
    try:
        fov = _numbers(path, encoding, space, "fieldOfView_mm")
    except InputError as error:
        logger.warning("%s: ignored", error)
        return None
    if fov is not None and min(fov) <= 0:
        logger.warning("%s: ignored a field of view of %s mm in <%s>", path, fov, space)
        return None
    return fov
