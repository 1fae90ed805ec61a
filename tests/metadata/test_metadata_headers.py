from __future__ import annotations

import csv
import zlib
from dataclasses import replace

import pytest

from ctxrecon.errors import InputError
from ctxrecon.metadata import (
    ScanMetadata,
    from_dicom,
    from_fastmri_header,
    from_fastmri_row,
    from_prompt,
    read_fastmri_plus,
)

HEADER = """<?xml version="1.0" encoding="utf-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
 <subjectInformation><patientGender>F</patientGender></subjectInformation>
 <measurementInformation><protocolName>CORPDFS_FBK</protocolName></measurementInformation>
 <acquisitionSystemInformation>
  <systemFieldStrength_T>1.494</systemFieldStrength_T>
 </acquisitionSystemInformation>
 <sequenceParameters><TR>3120</TR><TE>33</TE><TE>66</TE><TI>100</TI>
  <flipAngle_deg>140</flipAngle_deg><sequence_type>TurboSpinEcho</sequence_type>
 </sequenceParameters>
</ismrmrdHeader>"""
PREFIXED = HEADER.replace("<", "<i:").replace("<i:/", "</i:").replace("<i:?", "<?")
PREFIXED = PREFIXED.replace("xmlns", "xmlns:i")
KNEE = ScanMetadata(
    anatomy="knee",
    slice=20,
    contrast="PDFS",
    sequence="TurboSpinEcho",
    tr=3120,
    te=33,
    ti=100,
    flip_angle=140,
    sex="F",
    field_strength=1.494,
)
ROW = {
    "fname": "file1000311.h5",
    "acquisition": "CORPDFS_FBK",
    "systemFieldStrength_T": "1.494",
    "TR": "3000.0",
    "TE": "33.0",
    "TI": "100.0",
    "flipAngle_deg": "150.0",
    "sequence_type": "TurboSpinEcho",
}


@pytest.mark.parametrize(
    "xml",
    [
        HEADER,
        HEADER.encode(),
        HEADER.replace(' xmlns="http://www.ismrm.org/ISMRMRD"', ""),
        PREFIXED,
    ],
    ids=["text", "bytes", "no namespace", "prefix"],
)
def test_ismrmrd_header(xml):
    assert from_fastmri_header(xml, slice=20) == KNEE
    assert from_fastmri_header(xml, "CORPD_FBK").contrast == "PD"


@pytest.mark.parametrize(
    ("acquisition", "anatomy", "contrast"),
    [
        ("CORPD_FBK", "knee", "PD"),
        ("CORPDFS_FBK", "knee", "PDFS"),
        ("AXT1", "brain", "T1"),
        ("AXT1PRE", "brain", "T1PRE"),
        ("AXT1POST", "brain", "T1POST"),
        ("AXT2", "brain", "T2"),
        ("AXFLAIR", "brain", "FLAIR"),
        ("localiser", None, None),
    ],
)
def test_acquisitions_are_named_as_in_the_paper(acquisition, anatomy, contrast):
    metadata = from_fastmri_header(None, acquisition)
    assert metadata == ScanMetadata(anatomy=anatomy, contrast=contrast)


def test_what_a_header_does_not_fill_in_stays_unknown():
    empty = "<ismrmrdHeader><sequenceParameters><TR>0</TR></sequenceParameters></ismrmrdHeader>"
    assert from_fastmri_header(empty) == ScanMetadata()


BOMB = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>
<ismrmrdHeader>&b;</ismrmrdHeader>"""


@pytest.mark.parametrize(
    ("xml", "sentence"),
    [
        (BOMB, "document type"),
        ("<ismrmrdHeader>", "malformed"),
        ("", "malformed"),
        (b"\xff\xfe\x00", "malformed"),
        ("<html/>", "got <html>"),
    ],
)
def test_bad_headers_are_refused(xml, sentence):
    with pytest.raises(InputError, match=sentence):
        from_fastmri_header(xml)


@pytest.mark.parametrize(
    ("old", "new", "left_out"),
    [
        ("3120", "long", {"tr": None}),
        ("3120", "-1", {"tr": None}),
        ("3120", "nan", {"tr": None}),
        ("3120", "1e-300", {"tr": None}),
        (">3120<", ">3.12<", {"tr": None, "te": None}),
        ("1.494", "100000", {"field_strength": None}),
        (">TurboSpinEcho<", ">a,b<", {"sequence": None}),
        (">F<", ">unknown<", {"sex": None}),
    ],
)
def test_impossible_values_of_a_header_are_left_out(caplog, old, new, left_out):
    assert old in HEADER
    metadata = from_fastmri_header(HEADER.replace(old, new, 1), slice=20)
    assert metadata == replace(KNEE, **left_out)
    if "sex" not in left_out:
        assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_row_with_annotations():
    found = {("file1000311", 20): ("Mass", "Mass")}
    metadata = from_fastmri_row(ROW, 20, found)
    assert metadata.to_prompt() == (
        "knee, Slice 20, PDFS, Pathology: 2 Mass, Sequence: TurboSpinEcho, TR: 3000, TE: 33, "
        "TI: 100, Flip angle: 150, Field strength: 1.494"
    )
    assert from_fastmri_row(ROW, 3, found).pathologies == ()
    for unknown in ("", "x", "-1"):
        assert from_fastmri_row(ROW | {"TI": unknown}).ti is None


def test_bad_rows_are_refused():
    with pytest.raises(InputError, match="column 'TE'"):
        from_fastmri_row({name: value for name, value in ROW.items() if name != "TE"})
    with pytest.raises(InputError, match="give the slice"):
        from_fastmri_row(ROW, None, {})


def test_fastmri_plus_table(tmp_path):
    path = tmp_path / "knee.csv"
    path.write_text("file,slice,label\na,3,Joint Effusion \na.h5,3,Mass\nb,0,Mass\n")
    assert read_fastmri_plus(path) == {("a", 3): ("Joint Effusion", "Mass"), ("b", 0): ("Mass",)}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"file,slice\na,1\n", "column 'label'"),
        (b"", "column 'file'"),
        (b"file,slice,label\na,x,Mass\n", "line 2: .*slice number"),
        (b"file,slice,label\na,-1,Mass\n", "slice number"),
        (b"file,slice,label\na\n", "'a' and ''"),
        (b"file,slice,label\na,1,\n", "line 2: .*'label'"),
        (b"file,slice,label\na,1,\xff\n", "CSV .*UTF-8"),
    ],
)
def test_bad_fastmri_plus_tables_are_refused(tmp_path, content, sentence):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_fastmri_plus(path)


def test_missing_fastmri_plus_table_is_refused(tmp_path):
    with pytest.raises(InputError, match="no fastMRI\\+ table at"):
        read_fastmri_plus(tmp_path / "none.csv")


@pytest.mark.parametrize("anatomy", ["knee", "brain"])
def test_every_real_row_survives_the_round_trip(shared_data, anatomy):
    found = read_fastmri_plus(shared_data / "fastmri_plus" / f"{anatomy}.csv")
    slices: dict[str, list[int]] = {}
    for name, number in found:
        slices.setdefault(name, []).append(number)
    annotated = 0
    with (shared_data / "fastmri_metadata" / f"{anatomy}_multicoil.csv").open() as file:
        for row in csv.DictReader(file):
            for number in slices.get(row["fname"].removesuffix(".h5"), [0]):
                metadata = from_fastmri_row(row, number, found)
                annotated += bool(metadata.pathologies)
                assert metadata.anatomy == anatomy
                assert metadata.contrast is not None
                assert from_prompt(metadata.to_prompt(), strict=True) == metadata
    assert annotated > 3000


def write_dicom(path, **elements):
    pydicom = pytest.importorskip("pydicom")
    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    for name, value in ({"Modality": "MR"} | elements).items():
        setattr(header, name, value)
    header.save_as(path, enforce_file_format=True)
    return path


def test_dicom(tmp_path):
    path = write_dicom(
        tmp_path / "a.dcm",
        SeriesDescription="pd_tse_fs_cor_320",
        SequenceName="*tse2d1_7",
        BodyPartExamined="KNEE",
        InstanceNumber=21,
        RepetitionTime=3120,
        EchoTime="33.0",
        FlipAngle=140,
        MagneticFieldStrength=1.5,
        PatientAge="048Y",
        PatientSex="F",
    )
    assert from_dicom(path).to_prompt() == (
        "knee, Slice 20, PDFS, Sequence: TurboSpinEcho, TR: 3120, TE: 33, Flip angle: 140, "
        "Age: 48, Sex: F, Field strength: 1.5"
    )


@pytest.mark.parametrize(
    ("name", "sequence"),
    [("*fl3d1", "Flash"), ("flash", "Flash"), ("FLAIR", None), ("*tse2d1_7", "TurboSpinEcho")],
)
def test_sequence_names_of_vendors(tmp_path, name, sequence):
    assert from_dicom(write_dicom(tmp_path / "a.dcm", SequenceName=name)).sequence == sequence


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"ScanningSequence": "SE", "RepetitionTime": 3.15, "EchoTime": 0.033}, (3150, 33, None)),
        ({"ScanningSequence": "SE", "RepetitionTime": 3150, "EchoTime": 0.033}, (3150, 33, None)),
        ({"SequenceName": "*tse2d1_9", "RepetitionTime": 3.15}, (3150, None, None)),
        ({"RepetitionTime": 0.02, "EchoTime": 0.004}, (20, 4, None)),
        (
            {"RepetitionTime": 2.3, "EchoTime": 0.003, "InversionTime": 0.9},
            (2300, 3, 900),
        ),
        ({"RepetitionTime": 5.0, "EchoTime": 0.033}, (5, 0.033, None)),  # an ultrashort echo
        ({"RepetitionTime": 7.0, "EchoTime": 3, "InversionTime": 450}, (7, 3, 450)),
        ({"ScanningSequence": "SE", "RepetitionTime": 500, "EchoTime": 0}, (500, 0, None)),
    ],
)
def test_times_in_seconds_are_told_by_their_size(tmp_path, caplog, elements, expected):
    found = from_dicom(write_dicom(tmp_path / "a.dcm", **elements))
    assert (found.tr, found.te, found.ti) == pytest.approx(expected)
    given = tuple(elements.get(f"{name}Time") for name in ("Repetition", "Echo", "Inversion"))
    assert ("implausible" in caplog.text) == (given != expected)


@pytest.mark.parametrize(
    ("strength", "expected"), [(15000, 1.5), (3.0, 3), (30000, 3), (3000, None), (0, None)]
)
def test_fields_in_gauss(tmp_path, strength, expected):
    path = write_dicom(tmp_path / "a.dcm", MagneticFieldStrength=strength)
    assert from_dicom(path).field_strength == expected


@pytest.mark.parametrize(
    ("description", "contrast"),
    [("t2_flair_tra", "FLAIR"), ("T1 MPRAGE", "T1"), ("t1_t2_dual", None), ("survey", None)],
)
def test_contrast_from_a_series_description(tmp_path, description, contrast):
    path = write_dicom(tmp_path / "a.dcm", SeriesDescription=description, PatientAge="006M")
    assert from_dicom(path) == ScanMetadata(contrast=contrast, age=0.5)


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"PatientAge": "old"}, "'old'"),
        ({"FlipAngle": 400}, "got 400"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR AS")
def test_bad_dicom_values_are_left_out(tmp_path, caplog, elements, words):
    path = write_dicom(tmp_path / "a.dcm", RepetitionTime=3120, **elements)
    assert from_dicom(path) == ScanMetadata(tr=3120)
    assert words in caplog.text


def test_other_modalities_are_refused(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", Modality="CT")
    with pytest.raises(InputError, match="MR, got 'CT'"):
        from_dicom(path)


def test_files_that_are_no_dicom_are_refused(tmp_path):
    pytest.importorskip("pydicom")
    with pytest.raises(InputError, match="DICOM file"):
        from_dicom(tmp_path / "none.dcm")
    (tmp_path / "a.dcm").write_text("hello")
    with pytest.raises(InputError, match="DICOM file"):
        from_dicom(tmp_path / "a.dcm")


@pytest.mark.filterwarnings("ignore")
def test_damaged_dicom(tmp_path, caplog):
    path = write_dicom(tmp_path / "a.dcm", RepetitionTime="3120.0", FlipAngle=90)
    content = path.read_bytes()
    element = b"DS\x06\x003120.0"
    assert element in content
    path.write_bytes(content.replace(element, b"DS\x06\x003x20.0"))
    assert from_dicom(path) == ScanMetadata(flip_angle=90)
    assert "ignored RepetitionTime" in caplog.text
    path.write_bytes(content.replace(element, b"FD\x06\x003120.0"))
    with pytest.raises(InputError, match="cannot be read"):
        from_dicom(path)


def write_deflated(path, data):
    """A DICOM file whose header is as it should be, with these deflated bytes after it."""
    pydicom = pytest.importorskip("pydicom")
    write_dicom(path, Modality="MR")
    header = pydicom.dcmread(path)
    header.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    header.RepetitionTime = 3120
    header.save_as(path)
    content = path.read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")  # the length of the file's own header
    path.write_bytes(content[:start] + (content[start:] if data is None else data))
    return path


def test_deflated_dicom(tmp_path):
    assert from_dicom(write_deflated(tmp_path / "a.dcm", None)) == ScanMetadata(tr=3120)
    with pytest.raises(InputError, match="cannot be read"):
        from_dicom(write_deflated(tmp_path / "a.dcm", b"\xff" * 40))
    stream = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = stream.compress(bytes(2**24)) + stream.flush(zlib.Z_FULL_FLUSH)
    with pytest.raises(InputError, match="untrustworthy"):
        from_dicom(write_deflated(tmp_path / "a.dcm", bomb + 40 * bomb[: len(bomb)]))


UNENDING = b"\xff\xff\xff\xff"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "element",
    [
        b"\x20\x00\x13\x00IS\x04\x00inf ",
        (b"\x40\x00\x75\x02SQ\x00\x00" + UNENDING + b"\xfe\xff\x00\xe0" + UNENDING) * 3000,
    ],
    ids=["infinite", "deep"],
)
def test_dicom_elements_of_any_damage(tmp_path, element):
    path = write_dicom(tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes() + element)
    with pytest.raises(InputError, match="cannot be read") as caught:
        from_dicom(path)
    assert len(str(caught.value)) < 500


def test_real_dicom(shared_data):
    pytest.importorskip("pydicom")
    metadata = from_dicom(shared_data / "dicom_t1" / "N2D_0154.dcm")
    assert metadata == ScanMetadata(contrast="T1", slice=153, age=42, sex="F")
