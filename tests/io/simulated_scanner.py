"""ISMRMRD readouts of points in a scanner, ``s(k) = Σ_p ρ_p exp(−2πi k·(r_p − center))``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from test_io_ismrmrd import header_xml

OBLIQUE = np.linalg.qr(np.array([[0.9, 0.3, 0.1], [-0.2, 1.0, 0.4], [0.0, -0.3, 1.1]]))[0].T
"""Directions of readout, phase and partition encoding, of determinant 1 or −1, as rows."""


@dataclass(frozen=True)
class Scanner:
    """Excited points and their encoding.

    Attributes:
        points: ``(points, 3)`` in mm, patient's left, posterior, superior.
        density: ``(points,)``.
        matrix: samples along readout, phase and partition.
        fov: in mm along them.
        axes: their directions.
        sign: of the exponent; Siemens' is the other.
    """

    points: np.ndarray
    density: np.ndarray
    matrix: tuple[int, int, int]
    fov: tuple[float, float, float]
    axes: np.ndarray = field(default_factory=lambda: OBLIQUE)
    sign: int = -1

    def readout(self, line: int, partition: int, center: np.ndarray) -> np.ndarray:
        """Samples ``(coils=1, readout)`` of a line."""
        nx, ny, nz = self.matrix
        offsets = (self.points - center) @ self.axes.T / np.array(self.fov)
        k_x = np.arange(nx) - nx // 2
        turns = np.outer(k_x, offsets[:, 0]) + (line - ny // 2) * offsets[:, 1]
        turns += (partition - nz // 2) * offsets[:, 2] if nz > 1 else 0
        return (np.exp(self.sign * 2j * np.pi * turns) @ self.density)[None]

    def head(self, center: np.ndarray) -> dict:
        """Return the position entries of a readout's header."""
        names = ("read_dir", "phase_dir", "slice_dir")
        return {"position": center, **dict(zip(names, self.axes, strict=True))}

    def readouts(
        self, center: np.ndarray, places: Iterable[tuple[int, int]] | None = None, **fields
    ) -> list[dict]:
        """Readouts of lines and partitions, all by default."""
        _, ny, nz = self.matrix
        every = [(line, partition) for partition in range(nz) for line in range(ny)]
        return [
            {
                "data": self.readout(line, partition, center),
                "kspace_encode_step_1": line,
                "kspace_encode_step_2": partition,
                **self.head(center),
                **fields,
            }
            for line, partition in (every if places is None else places)
        ]

    def header(self, recon_fov: tuple | None = None, vendor: str = "", extra: str = "") -> str:
        """The XML header, with the image's field of view where it is smaller."""
        _, ny, nz = self.matrix
        xml = header_xml(self.matrix, self.matrix, ny // 2, ny - 1, extra=extra)
        head, *tail = xml.split("<fieldOfView_mm>")
        for fov, rest in zip((self.fov, recon_fov or self.fov), tail, strict=True):
            edges = "".join(f"<{a}>{v}</{a}>" for a, v in zip("xyz", fov, strict=True))
            head += "<fieldOfView_mm>" + edges + rest[rest.index("</fieldOfView_mm>") :]
        limits = f"<kspace_encoding_step_2><minimum>0</minimum><maximum>{nz - 1}</maximum>"
        limits += f"<center>{nz // 2}</center></kspace_encoding_step_2></encodingLimits>"
        head = head.replace("</encodingLimits>", limits)
        system = f"<acquisitionSystemInformation><systemVendor>{vendor}</systemVendor>"
        return head.replace("<encoding>", f"{system}</acquisitionSystemInformation><encoding>", 1)
