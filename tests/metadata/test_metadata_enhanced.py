"""Metadata of Enhanced MR images, which DICOM keeps in functional groups."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_metadata_headers import write_dicom

from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata, from_dicom


def group(**elements):
    """A sequence of one item."""
    item = pytest.importorskip("pydicom").Dataset()
    for name, value in elements.items():
        setattr(item, name, value)
    return [item]


def test_enhanced_dicom(tmp_path):
    timing = group(RepetitionTime=3150.0, FlipAngle=140.0)
    path = write_dicom(
        tmp_path / "a.dcm",
        SeriesDescription="t2_tse_sag",
        PulseSequenceName="*tse2d1_9",
        InstanceNumber=1,
        NumberOfFrames=2,
        SharedFunctionalGroupsSequence=group(MRTimingAndRelatedParametersSequence=timing),
        PerFrameFunctionalGroupsSequence=[
            *group(
                FrameContentSequence=group(InStackPositionNumber=5),
                MREchoSequence=group(EffectiveEchoTime=33.0),
                MRModifierSequence=group(InversionTimes=[100.0, 200.0]),
            ),
            *group(MREchoSequence=group(EffectiveEchoTime=66.0)),
        ],
    )
    first = ScanMetadata(
        contrast="T2", sequence="TurboSpinEcho", tr=3150, te=33, ti=100, flip_angle=140
    )
    assert from_dicom(path) == first
    assert from_dicom(path, 0) == replace(first, slice=4)
    assert from_dicom(path, 1) == replace(first, te=66, ti=None)
    with pytest.raises(InputError, match="2 frames"):
        from_dicom(path, 2)


def test_the_anatomy_of_an_enhanced_image_is_coded(tmp_path):
    code = {"CodeValue": "72696002", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Knee"}
    anatomy = group(FrameAnatomySequence=group(AnatomicRegionSequence=group(**code)))
    path = write_dicom(tmp_path / "a.dcm", SharedFunctionalGroupsSequence=anatomy)
    assert from_dicom(path).anatomy == "knee"
    write_dicom(path, SharedFunctionalGroupsSequence=anatomy, BodyPartExamined="BRAIN")
    assert from_dicom(path).anatomy == "brain"
