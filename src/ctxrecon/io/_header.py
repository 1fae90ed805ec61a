"""The geometry that an ISMRMRD XML header states; fastMRI files carry the same header."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ctxrecon.errors import InputError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_NAMESPACE = "{http://www.ismrm.org/ISMRMRD}"


@dataclass(frozen=True)
class EncodingHeader:
    """Sizes in samples and mm, ordered (readout x, phase encode y, partition z).

    Attributes:
        encoded_matrix: size of the measured grid, readout oversampling included.
        recon_matrix: size of the image the scanner makes.
        recon_fov: its field of view in mm, or ``None`` when it is not stated.
        center: phase-encode line of zero frequency, or ``None`` when it is not stated.
        maximum: last phase-encode line, or ``None`` when it is not stated.
        trajectory: ``"cartesian"``, ``"radial"``, …
        calibration_mode: ``"embedded"``, ``"separate"``, … or ``None``.
        echo_times: TE in ms of each contrast, as far as they are stated.
        noise_bandwidth: relative receiver noise bandwidth, or ``None``.
    """

    encoded_matrix: tuple[int, int, int]
    recon_matrix: tuple[int, int, int]
    recon_fov: tuple[float, float, float] | None
    center: int | None
    maximum: int | None
    trajectory: str
    calibration_mode: str | None
    echo_times: tuple[float, ...]
    noise_bandwidth: float | None

    @property
    def voxel_size(self) -> tuple[float, float, float] | None:
        """Voxel size (ny, nx, slice) of the reconstructed image in mm."""
        if self.recon_fov is None:
            return None
        x, y, z = (f / n for f, n in zip(self.recon_fov, self.recon_matrix, strict=True))
        return (x, y, z)


def parse_header(path: Path, xml: str) -> EncodingHeader:
    """Parse the first encoding of an ISMRMRD XML header, refusing entities and bad numbers."""
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        root = fromstring(xml, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise InputError(
            f"{path}: its ISMRMRD header is not well-formed or not safe XML ({error})"
        ) from error
    encoding = root.find(f"{_NAMESPACE}encoding")
    if encoding is None:
        raise InputError(f"{path}: its ISMRMRD header has no <encoding>: the matrix is not known")

    encoded = _numbers(path, encoding, "encodedSpace", "matrixSize")
    recon = _numbers(path, encoding, "reconSpace", "matrixSize")
    if encoded is None or recon is None:
        raise InputError(f"{path}: its ISMRMRD header states no encoded and recon matrix size")
    matrices = [tuple(int(n) for n in matrix) for matrix in (encoded, recon)]
    if any(not 1 <= n <= 65535 for matrix in matrices for n in matrix):
        raise InputError(
            f"{path}: the matrix sizes {matrices[0]} and {matrices[1]} of its ISMRMRD header "
            "are not between 1 and 65535"
        )
    limits = "encodingLimits", "kspace_encoding_step_1"
    center = _number(path, encoding, *limits, "center")
    maximum = _number(path, encoding, *limits, "maximum")
    fov = _numbers(path, encoding, "reconSpace", "fieldOfView_mm")
    return EncodingHeader(
        encoded_matrix=(matrices[0][0], matrices[0][1], matrices[0][2]),
        recon_matrix=(matrices[1][0], matrices[1][1], matrices[1][2]),
        recon_fov=fov if fov is not None and min(fov) > 0 else None,
        center=None if center is None else int(center),
        maximum=None if maximum is None else int(maximum),
        trajectory=(_text(encoding, "trajectory") or "cartesian").lower(),
        calibration_mode=_text(encoding, "parallelImaging", "calibrationMode"),
        echo_times=_echo_times(path, root),
        noise_bandwidth=_number(
            path, root, "acquisitionSystemInformation", "relativeReceiverNoiseBandwidth"
        ),
    )


def _text(element: Element, *names: str) -> str | None:
    found = element.find("/".join(_NAMESPACE + name for name in names))
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


def _echo_times(path: Path, root: Element) -> tuple[float, ...]:
    found = root.findall(f"{_NAMESPACE}sequenceParameters/{_NAMESPACE}TE")
    return tuple(_parse_number(path, element.text or "", "TE") for element in found)


def _numbers(path: Path, element: Element, *names: str) -> tuple[float, float, float] | None:
    x, y, z = (_number(path, element, *names, axis) for axis in "xyz")
    return None if x is None or y is None or z is None else (x, y, z)
