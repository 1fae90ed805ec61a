"""Commands and snippets of the documents, and a folder in which they run."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from volumes import SKMTEA_COLUMNS, coil_maps, images, write_head, write_labels, write_skmtea

from ctxrecon.io import write_scan
from ctxrecon.masks import uniform1d
from ctxrecon.masks.learned import PatternGenerator, PerContrastSampler
from ctxrecon.phantom import phantom_scan
from ctxrecon.pipelines import CrossModalPipeline, JointPipeline, TaskPipeline, load_reconstructor
from ctxrecon.reconstructors import CrossModal, HRUNet
from ctxrecon.scan import Scan
from ctxrecon.tasks import LatentSegmenter

ROOT = Path(__file__).resolve().parents[1]
GENERATED = tuple(
    line for line in (ROOT / ".gitignore").read_text().splitlines() if line.startswith("docs/")
)
"""Pages and folders of the site that its build writes, which Git ignores."""

SITE_PAGES = (
    "docs/index.md",
    "docs/install.md",
    "docs/how-to/prepare-data.md",  # the guides of training use what this one makes
    *sorted(
        str(path.relative_to(ROOT))
        for folder in ("concepts", "how-to", "papers", "benchmarks", "contributing")
        for path in (ROOT / "docs" / folder).glob("*.md")
        if path.name != "prepare-data.md" and str(path.relative_to(ROOT)) not in GENERATED
    ),
    "docs/architecture.md",
    "docs/formats.md",
)
"""The pages of the site that are written by hand."""

DOCUMENTS = (
    "README.md",
    *SITE_PAGES,
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    "src/ctxrecon/checkpoints/prior/README.md",
    "src/ctxrecon/checkpoints/reconstructor/README.md",
)
_COMMANDS = ("", "bash")
_BLOCK = re.compile(r"^ *```(\{?[\w-]*\}?)[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_SHAPE = (32, 32)
_OUTPUTS = ("--out", "--output", "--output_dir")


@dataclass(frozen=True)
class Command:
    """A command of a document, on one line, with its comment if it has one."""

    document: str
    text: str

    @property
    def words(self) -> list[str]:
        """The words of the command as split by a shell, without expanding file patterns."""
        return shlex.split(self.text, comments=True)

    @property
    def output(self) -> str | None:
        """The file or folder that it writes."""
        words = self.words
        return next((words[words.index(name) + 1] for name in _OUTPUTS if name in words), None)

    def needs(self, path: str) -> bool:
        """Whether it reads this file or folder, or something in it."""
        return path != self.output and any(
            word == path or word.startswith(f"{path}/") for word in self.words
        )


def blocks(document: str, *languages: str) -> list[str]:
    """The fenced blocks of a document in these languages."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return [body for found, body in _BLOCK.findall(text) if found in languages]


def relative_links(document: str) -> list[Path]:
    """The files that the relative links and pictures of a document point to."""
    text = (ROOT / document).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)", _BLOCK.sub("", text))
    folder = (ROOT / document).parent
    return [(folder / one).resolve() for one in links if not re.match(r"\w+:", one)]


def commands(document: str) -> list[Command]:
    """The commands of a document in their order."""
    found = []
    for block in blocks(document, *_COMMANDS):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            found += [
                Command(document, part.strip()) for part in line.split(" && ") if part.strip()
            ]
    return found


def make_inputs(folder: Path) -> None:
    """Write the input files that the documents assume, each as small as possible."""
    generator = torch.Generator().manual_seed(0)
    mask = uniform1d(_SHAPE, 2, center_fraction=0.25, generator=generator)
    write_scan(folder / "scan.h5", _volume(11, mask, generator))
    full = phantom_scan("brain", shape=_SHAPE, num_coils=4, generator=generator)
    np.save(folder / "scan.npy", (full.kspace * mask).numpy())
    write_scan(folder / "echoes.h5", _volume(5, None, generator))
    scans = folder / "scans"
    scans.mkdir()
    # At ×8 a matrix as large as this has the calibration lines that coil maps need.
    write_scan(scans / "one.h5", phantom_scan("knee", num_coils=4, generator=generator))

    (folder / "multicoil_train").mkdir()
    raw = phantom_scan("knee", shape=(320, 320), num_coils=4, generator=generator)
    write_scan(folder / "multicoil_train" / "file1.h5", raw)
    (folder / "knee.csv").write_text(
        "file,slice,study_level,x,y,width,height,label\nfile1,0,No,1,1,2,2,Meniscus Tear\n"
    )
    (folder / "files_recon_calib-24").mkdir()
    truth, maps = images(512, (512, 4)), coil_maps((512, 4), coils=2)
    write_skmtea(
        folder / "files_recon_calib-24" / "MTR_005.h5", truth, maps.expand(512, -1, -1, -1)
    )
    (folder / "all_metadata.csv").write_text(f"{SKMTEA_COLUMNS}\nMTR_005,48,F,20.36,6.428,20,3\n")
    (folder / "LABELS").mkdir()
    for number in ("01", "10"):
        write_labels(folder / "LABELS" / f"training_seg_{number}.nii.gz")
    (folder / "T1_NIFTI").mkdir()
    write_labels(folder / "T1_NIFTI" / "sub-01_T1w.nii.gz")
    (folder / "test_people.txt").write_text("sub-02\n")
    for name in ("t1", "t2"):
        write_head(folder / f"{name}.nii.gz")
    np.savez(folder / "complex.npz", a=torch.view_as_real(full.kspace[:, 0]).numpy())
    (folder / "complex.json").write_text('[{"array": "a", "index": 0, "subject": "one"}]')
    shutil.copytree(ROOT / "training", folder / "training")


def make_models(folder: Path) -> None:
    """Write models of every kind in place of the trained ones of the documents."""
    load_reconstructor().save_pretrained(folder / "runs" / "modl" / "pipeline")
    sampler = PerContrastSampler(_SHAPE, 5, acceleration=4, center_fraction=0.1875)
    network = HRUNet(width=4, depth=2, blocks=2)
    JointPipeline(network, sampler, contrasts=5).save_pretrained(folder / "runs/joint/pipeline")
    lines = PatternGenerator(_SHAPE, (0.2, 0.5), center_fraction=0.1875)
    segmenter = LatentSegmenter(width=4, depth=2, layers=1, latent_channels=2)
    pipe = TaskPipeline(lines, segmenter, classes=["mass"])
    pipe.save_pretrained(folder / "runs/masses/pipeline")
    aligned = CrossModal(width=2, depth=1, cascades=1, synthesis_cascades=1, align_width=2)
    CrossModalPipeline(aligned).save_pretrained(folder / "runs/cross/pipeline")


def _volume(count: int, mask: torch.Tensor | None, generator: torch.Generator) -> Scan:
    """Slices of one knee scan each, with 4 coils."""
    made = [
        phantom_scan("knee", shape=_SHAPE, num_coils=4, mask=mask, generator=generator)
        for _ in range(count)
    ]
    return Scan(
        torch.cat([one.kspace for one in made]),
        made[0].mask,
        metadata=tuple(replace(one.metadata[0], slice=i) for i, one in enumerate(made)),
    )
