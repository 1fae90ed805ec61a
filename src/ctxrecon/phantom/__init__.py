"""Digital phantom: anatomy, tissues, sequences and coils for scans with known metadata."""

from ctxrecon.phantom.anatomy import Anatomy
from ctxrecon.phantom.bank import AnatomyBank
from ctxrecon.phantom.brain import brain_anatomy
from ctxrecon.phantom.dataset import PhantomSlices, describe, normalize
from ctxrecon.phantom.echoes import (
    ECHO_TIMES,
    ContrastScan,
    PhantomContrasts,
    contrast_images,
    contrast_scan,
    multi_echo,
    pd_pair,
    true_t2_star,
)
from ctxrecon.phantom.knee import knee_anatomy
from ctxrecon.phantom.labels import anatomy_from_labels, load_label_volume
from ctxrecon.phantom.pairs import (
    ImagePair,
    Misalignment,
    PairScan,
    PhantomPairs,
    image_pair,
    pair_scan,
    t1_t2_pair,
)
from ctxrecon.phantom.person import Person, draw_person
from ctxrecon.phantom.protocols import draw_protocol
from ctxrecon.phantom.raters import SEGMENTATIONS, Raters, Segmentation
from ctxrecon.phantom.sequences import signal
from ctxrecon.phantom.simulate import measure, phantom_scan
from ctxrecon.phantom.structures import Structure
from ctxrecon.phantom.subject import Subject
from ctxrecon.phantom.tissues import NUM_TISSUES, Tissue, TissueParameters, tissue_parameters

__all__ = [
    "ECHO_TIMES",
    "NUM_TISSUES",
    "SEGMENTATIONS",
    "Anatomy",
    "AnatomyBank",
    "ContrastScan",
    "ImagePair",
    "Misalignment",
    "PairScan",
    "Person",
    "PhantomContrasts",
    "PhantomPairs",
    "PhantomSlices",
    "Raters",
    "Segmentation",
    "Structure",
    "Subject",
    "Tissue",
    "TissueParameters",
    "anatomy_from_labels",
    "brain_anatomy",
    "contrast_images",
    "contrast_scan",
    "describe",
    "draw_person",
    "draw_protocol",
    "image_pair",
    "knee_anatomy",
    "load_label_volume",
    "measure",
    "multi_echo",
    "normalize",
    "pair_scan",
    "pd_pair",
    "phantom_scan",
    "signal",
    "t1_t2_pair",
    "tissue_parameters",
    "true_t2_star",
]
