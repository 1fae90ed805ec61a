"""Writing of image files with their position in the scanner and their metadata."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxrecon.commands.logs import say
from ctxrecon.commands.methods import JOINT, NETWORK, PRIOR
from ctxrecon.commands.paths import DICOM, NIFTI, Outputs, image_files
from ctxrecon.commands.results import Result, figure_images
from ctxrecon.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from ctxrecon.commands.volume import Volume
    from ctxrecon.io import DicomHeader
    from ctxrecon.io.dicom import Quantity


@dataclass
class ImageWriter:
    """Writer of images of a volume's slices in the format of the outputs.

    All DICOM images belong to one study, each kind of image to its own series.

    Attributes:
        outputs: Names of the files.
        volume: Volume that provides the images' position and metadata.
        acceleration: Acceleration factor of the k-space.
        single_frames: Whether to write one DICOM file per slice.
        written: Files written so far, in order.
    """

    outputs: Outputs
    volume: Volume
    acceleration: float | None = None
    single_frames: bool = False
    written: list[Path] = field(default_factory=list)
    _header: DicomHeader | None = None

    def write(
        self,
        path: Path,
        images: Tensor,
        method: str = "",
        quantity: Quantity = "magnitude",
        *,
        metadata: bool = True,
    ) -> tuple[Path, ...]:
        """Write images and return their files.

        Args:
            path: Output path, in the format of the outputs.
            images: Images of shape ``(batch, ny, nx)``, real or complex.
            method: Name of the method that reconstructed them.
            quantity: Quantity that they show; ``"phase"`` writes the phase of complex images.
            metadata: Whether there is one image per slice of the volume, with its metadata.
        """
        from ctxrecon.io import write_image

        suffix = self.outputs.suffix.lower()
        options: dict[str, Any] = {}
        if suffix in NIFTI or suffix == DICOM:
            options["part"] = "phase" if quantity == "phase" else "magnitude"
            if self.volume.affine is not None:
                options["affine"] = self.volume.affine
            elif self.volume.voxel_size is not None:
                options["voxel_size"] = self.volume.voxel_size
        if suffix == DICOM:
            options["single_frames"] = self.single_frames
            options["header"] = self._next_header(images, method, quantity, metadata)
        files = write_image(path, images, **options)
        self.written += files
        return files

    def _next_header(
        self, images: Tensor, method: str, quantity: Quantity, metadata: bool
    ) -> DicomHeader:
        from ctxrecon.io import DicomHeader
        from ctxrecon.io.dicom import signal_exponent

        if self._header is None:
            exponent = signal_exponent(images.numpy())
            self._header = DicomHeader(method, self.acceleration, exponent=exponent, number=0)
        self._header = replace(
            self._header,
            method=method,
            quantity=quantity,
            number=self._header.number + 1,
            metadata=self.volume.metadata if metadata else (),
        )
        return self._header


def check_place(outputs: Outputs, volume: Volume) -> None:
    """Check that a scan states its position if DICOM is to be written.

    Raises:
        InputError: If the format is DICOM and the position of the slices is unknown.
    """
    if outputs.suffix.lower() == DICOM and volume.affine is None:
        raise InputError(
            f"cannot write {outputs.image}: DICOM needs the position of the image in the patient, "
            f"and {volume.file} does not state parallel, equally spaced slices: write NIfTI"
        )


def result_files(
    outputs: Outputs,
    count: int,
    method: str,
    others: tuple[str, ...],
    samples: int,
    phase: bool,
    single_frames: bool,
) -> list[Path]:
    """Return every file that a reconstruction may write."""
    joint = JOINT in (method, *others)
    images = [outputs.image, *([outputs.phase] if phase else [])]
    if samples > 1 or method in (NETWORK, JOINT):
        images.append(outputs.std)
    keys = ["prior" if name == PRIOR else name for name in others]
    if samples > 1 and others:
        keys.append("one-sample")
    images += [outputs.method(key) for key in keys]
    images += [outputs.t2star] if joint else []
    files = [
        file for image in images for file in image_files(image, count, single_frames=single_frames)
    ]
    files += [outputs.masks, outputs.lines] if joint else []
    return [*files, outputs.figure, outputs.metrics]


def write_results(
    writer: ImageWriter,
    results: list[Result],
    reference: Tensor | None,
    reference_name: str,
    *,
    phase: bool,
    keep_all: bool,
) -> None:
    """Write the images of all slices, and a figure of the middle slice."""
    from ctxrecon.figures import comparison_figure

    final, outputs, volume = results[-1], writer.outputs, writer.volume
    writer.write(outputs.image, final.images, final.name)
    if phase:
        writer.write(outputs.phase, final.images, final.name, "phase")
    if final.std is not None:
        writer.write(outputs.std, final.std, final.name, "std")
    if keep_all:
        for result in results[:-1]:
            writer.write(outputs.method(result.key), result.images, result.name)
    middle = len(final.images) // 2
    title = f"{volume.file.name}, ×{writer.acceleration:.3g}"
    if volume.total > 1:
        title += f", slice {volume.numbers[middle]} (of 0 to {volume.total - 1})"
    comparison_figure(
        outputs.figure,
        figure_images(results, middle),
        None if reference is None or not bool(reference[middle].any()) else reference[middle],
        std=None if final.std is None else final.std[middle],
        std_name="std of the samples" if final.key == "prior" else "expected error",
        reference_name=reference_name,
        title=title,
    )
    listed = ", ".join(map(str, writer.written[:4]))
    more = len(writer.written) - 4
    say(f"images: {listed}" + (f" and {more} more" if more > 0 else ""))
    say(f"figure: {outputs.figure}")
