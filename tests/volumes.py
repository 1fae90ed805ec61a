"""Small raw volumes in the layouts that ``ctxrecon prepare`` reads."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from ctxrecon.coils import simulate_coil_maps
from ctxrecon.fourier import fft2c

HEADER = """<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
 <encoding><encodedSpace><matrixSize><x>96</x><y>56</y><z>1</z></matrixSize></encodedSpace>
  <reconSpace><matrixSize><x>48</x><y>48</y><z>1</z></matrixSize></reconSpace>
  <encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>51</maximum>
   <center>26</center></kspace_encoding_step_1></encodingLimits></encoding>
 <sequenceParameters><TR>3120</TR><TE>33</TE><TI>100</TI><flipAngle_deg>140</flipAngle_deg>
  <sequence_type>TurboSpinEcho</sequence_type></sequenceParameters></ismrmrdHeader>"""


def images(count: int, shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    """Smooth complex discs, ``(count, ny, nx)``, each different."""
    ny, nx = shape
    y, x = torch.meshgrid(torch.arange(ny) - ny / 2, torch.arange(nx) - nx / 2, indexing="ij")
    found = []
    for number in range(seed, seed + count):
        disc = torch.sigmoid(18 - torch.hypot(y, 1.1 * x)) * (1.5 + torch.cos(number + y / 5))
        found.append(disc * torch.exp(0.02j * (x + number * y)))
    return torch.stack(found).to(torch.complex64)


def coil_maps(shape: tuple[int, int], coils: int = 4) -> torch.Tensor:
    return simulate_coil_maps(coils, shape, generator=torch.Generator().manual_seed(5))


def write_fastmri(path: Path, truth: torch.Tensor, *, coils: int = 4, **members: object) -> Path:
    """fastMRI's layout: ``(slices, coils, ny, nx)``, or without coils; lines 2 to 53 encoded."""
    kspace = fft2c(truth[:, None] * coil_maps((truth.shape[-2], truth.shape[-1]), coils))
    kspace[..., :2] = 0
    kspace[..., 54:] = 0
    with h5py.File(path, "w") as file:
        file["kspace"] = (kspace if coils > 1 else fft2c(truth)).numpy()
        file["ismrmrd_header"] = HEADER
        file.attrs["acquisition"] = "CORPDFS_FBK"
        for name, value in members.items():
            file[name] = value
    return path


SKMTEA_COLUMNS = (
    "MTR_ID,PatientAge,PatientSex,RepetitionTime,EchoTime1,FlipAngle,MagneticFieldStrength"
)


def write_skmtea(path: Path, truth: torch.Tensor, maps: torch.Tensor) -> None:
    """Layout of files_recon_calib-24: kspace (x, ky, kz, 2, coils), maps (x, y, z, coils, 1)."""
    echoes = torch.stack([fft2c(truth[:, None] * maps), fft2c(0.3j * truth[:, None] * maps)])
    with h5py.File(path, "w") as file:
        file["kspace"] = echoes.permute(1, 3, 4, 0, 2).numpy()
        file["maps"] = maps.permute(0, 2, 3, 1)[..., None].numpy()
        file["target"] = truth[..., None, None].numpy()


def write_head(path: Path) -> Path:
    """Write three slices of an ellipsoid with a bright spot."""
    nibabel = pytest.importorskip("nibabel")
    x, y = np.ogrid[-1:1:64j, -1:1:64j]
    head = (x**2 / 0.5 + y**2 / 0.7 < 1) + 1.0 * ((x - 0.2) ** 2 + y**2 < 0.05)
    volume = np.repeat(head[..., None], 3, axis=2).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([3.0, 3.0, 5.0, 1.0])), path)
    return path


def write_labels(path: Path, thickness: int = 20) -> Path:
    nibabel = pytest.importorskip("nibabel")
    volume = np.zeros((64, 64, 24), np.int16)
    volume[10:54, 10:54, 2 : 2 + thickness] = 3
    volume[20:44, 20:44, 2 : 2 + thickness] = 2
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), path)
    return path
