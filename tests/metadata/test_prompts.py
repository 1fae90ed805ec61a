from __future__ import annotations

import logging
import random
from dataclasses import replace

import pytest

from ctxrecon.errors import InputError
from ctxrecon.inference.prompts import check_prompts
from ctxrecon.metadata import ScanMetadata, canonical_prompt, from_prompt, parse_prompt
from ctxrecon.metadata.parsing import _warn_once

FASTMRI = (
    "knee, Slice 20, PDFS, Pathology: 1 Meniscus Tear, Sequence: TurboSpinEcho, TR: 3120, TE: 33, "
    "TI: 100, Flip angle: 140"
)
SKM_TEA = "Qdess, Knee, Slice 46, Age: 48, Sex: F, TR: 20.36, TE: 6.428, Flip Angle: 20"
KNEE = ScanMetadata(
    anatomy="knee",
    slice=20,
    contrast="PDFS",
    pathologies=("Meniscus Tear",),
    sequence="TurboSpinEcho",
    tr=3120,
    te=33,
    ti=100,
    flip_angle=140,
)


@pytest.fixture(autouse=True)
def warnings_are_given_again():
    _warn_once.cache_clear()


def test_the_published_forms_are_written_and_read_exactly():
    dess = ScanMetadata(
        "knee", 46, sequence="Qdess", age=48, sex="F", tr=20.36, te=6.428, flip_angle=20
    )
    assert KNEE.to_prompt() == FASTMRI
    assert dess.to_prompt("skm-tea") == SKM_TEA
    assert from_prompt(FASTMRI, strict=True) == KNEE
    assert from_prompt(SKM_TEA, strict=True) == dess
    assert canonical_prompt(FASTMRI) == FASTMRI
    assert canonical_prompt(SKM_TEA) == SKM_TEA


def test_the_papers_prompt_without_counts_is_read():
    text = (
        "Knee, Slice 19, PDFS, Pathology: Displaced Meniscal Tissue, Meniscus Tear, "
        "Bone-Subchondral edema, TR: 3150, TE: 33, TI: 100, Flip angle: 150"
    )
    metadata = from_prompt(text, strict=True)
    labels = ("Displaced Meniscal Tissue", "Meniscus Tear", "Bone-Subchondral edema")
    assert metadata.pathologies == labels
    assert (metadata.tr, metadata.flip_angle) == (3150, 150)


def test_what_a_form_lacks_follows_at_its_end():
    full = replace(KNEE, age=48, sex="F", field_strength=2.89362)
    assert full.to_prompt() == FASTMRI + ", Age: 48, Sex: F, Field strength: 2.89362"
    assert full.to_prompt("skm-tea").endswith(
        "Flip Angle: 140, PDFS, TI: 100, Field strength: 2.89362"
    )


def random_metadata(rng: random.Random) -> ScanMetadata:
    def maybe(value):
        return value if rng.random() < 0.7 else None

    def number(low, high):
        kind = rng.randrange(3)
        value = float(f"{rng.uniform(low, high):.6g}")
        return (
            round(value) if kind == 0 and round(value) else round(value, 3) if kind == 1 else value
        )

    labels = [
        "Meniscus Tear",
        "Cartilage - Partial Thickness loss/defect",
        "Global label: Small vessel chronic white matter ischemic change",
        "3 vessel disease",
        "TR: 30",
        "Slice 4",
        "knee",
        "none",
        "Ödem",
    ]
    return ScanMetadata(
        anatomy=maybe(rng.choice(["knee", "brain", "wrist", "straße", "left: hand"])),
        slice=maybe(rng.randrange(60)),
        contrast=maybe(rng.choice(["PD", "PDFS", "T2", "FLAIR", "T1POST", "T2* map", "Other: q"])),
        pathologies=tuple(rng.choices(labels, k=rng.choice([0, 0, 1, 2, 5]))),
        sequence=maybe(rng.choice(["TurboSpinEcho", "Flash", "Qdess", "EPI", "TE: 5", "none"])),
        tr=maybe(number(250, 1e4)),
        te=maybe(number(0, 200)),
        ti=maybe(number(0, 3000)),
        flip_angle=maybe(number(0.5, 360)),
        age=maybe(number(0, 100)),
        sex=maybe(rng.choice("FMO")),
        field_strength=maybe(number(0.05, 11)),
    )


@pytest.mark.parametrize("form", ["fastmri", "skm-tea"])
def test_round_trip_loses_nothing(form):
    rng = random.Random(0)
    for _ in range(1500):
        metadata = random_metadata(rng)
        prompt = metadata.to_prompt(form)
        assert from_prompt(prompt, strict=True) == metadata, prompt
        assert canonical_prompt(prompt, form) == prompt


def test_parts_may_come_in_any_order_and_case():
    rng = random.Random(0)
    for _ in range(300):
        metadata = replace(random_metadata(rng), pathologies=(), anatomy="brain", contrast="T2")
        metadata = replace(metadata, sequence=None)
        parts = metadata.to_prompt().split(", ")
        rng.shuffle(parts)
        text = rng.choice([", ", ",", " ; ", "\n"]).join(parts)
        assert from_prompt(rng.choice([text, text.lower(), text.upper()]), strict=True) == metadata


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Knee, PDFS, TR: 3150", ScanMetadata("knee", contrast="PDFS", tr=3150)),
        ("knee PDFS TR 3150 TE 33", ScanMetadata("knee", contrast="PDFS", tr=3150, te=33)),
        ("TR: 3150 ms, TE=33ms", ScanMetadata(tr=3150, te=33)),
        ("TR 3.15 s, TI: 2.5 s", ScanMetadata(tr=3150, ti=2500)),
        ("flip angle 150°", ScanMetadata(flip_angle=150)),
        ("Flip-Angle: 150 degrees, FA 150", ScanMetadata(flip_angle=150)),
        ("repetition time: 500, echo time: 9.4", ScanMetadata(tr=500, te=9.4)),
        ("brain, T2FLAIR", ScanMetadata("brain", contrast="FLAIR")),
        ("AXFLAIR", ScanMetadata(contrast="FLAIR")),
        ("t2 flair", ScanMetadata(contrast="FLAIR")),
        ("fat-suppressed PD", ScanMetadata(contrast="PDFS")),
        ("CORPDFS_FBK", ScanMetadata(contrast="PDFS")),
        ("Sequence: tse", ScanMetadata(sequence="TurboSpinEcho")),
        ("TSE, 3T", ScanMetadata(sequence="TurboSpinEcho", field_strength=3)),
        ("field strength 1.5 Tesla", ScanMetadata(field_strength=1.5)),
        ("age 48 years, female", ScanMetadata(age=48, sex="F")),
        ("sex: male, Age: 48Y", ScanMetadata(age=48, sex="M")),
        ("slice number 7", ScanMetadata(slice=7)),
        ("Pathology: 2 Mass, TR: 500", ScanMetadata(pathologies=("Mass", "Mass"), tr=500)),
        ("Pathology: none, T2", ScanMetadata(contrast="T2")),
        ("Kopf, T1-gewichtet", ScanMetadata("brain", contrast="T1")),
        ("SCHÄDEL", ScanMetadata("brain")),
        ("Scha\u0308del", ScanMetadata("brain")),
        ("t2_tse", ScanMetadata(contrast="T2", sequence="TurboSpinEcho")),
        ("pd-tse-fs", ScanMetadata(contrast="PDFS", sequence="TurboSpinEcho")),
        ("PD, fettgesättigt", ScanMetadata(contrast="PDFS")),
        ("knee PD fat sat", ScanMetadata("knee", contrast="PDFS")),
        ("T1 mit KM", ScanMetadata(contrast="T1POST")),
        ("FLAIR T2", ScanMetadata(contrast="FLAIR")),
        ("T2*", ScanMetadata(contrast="T2*")),
        ("MP-RAGE", ScanMetadata(sequence="MPRAGE")),
        ("knee\u00a0T2|3T", ScanMetadata("knee", contrast="T2", field_strength=3)),
        ("ｋｎｅｅ，ＰＤ", ScanMetadata("knee", contrast="PD")),
        ("TR: 3.15 seconds, TE 900 us", ScanMetadata(tr=3150, te=0.9)),
        ("TE: 80 µs", ScanMetadata(te=0.08)),
        ("TE: 80 μs", ScanMetadata(te=0.08)),
        ("TR (ms): 3150, TE [s] = 0.033", ScanMetadata(tr=3150, te=33)),
        ("TR/TE = 3000/30 ms", ScanMetadata(tr=3000, te=30)),
        ("Echozeit 33, Repetitionszeit: 3150", ScanMetadata(tr=3150, te=33)),
        ("Flipwinkel 90 Grad", ScanMetadata(flip_angle=90)),
        ("flip angle of 90 degrees", ScanMetadata(flip_angle=90)),
        ("\ufeffkn\u00adee, TR: 3150\u200b", ScanMetadata("knee", tr=3150)),
        ("3-T", ScanMetadata(field_strength=3)),
        ("Feldstärke: 1.5 T", ScanMetadata(field_strength=1.5)),
        ("MRI scan of the knee", ScanMetadata("knee")),
        ("48-year-old woman", ScanMetadata(age=48, sex="F")),
        ("Geschlecht: w, Alter: 48 Jahre", ScanMetadata(age=48, sex="F")),
        ("TE: 34, TR: 20, DESS", ScanMetadata(tr=20, te=34, sequence="Qdess")),
        ("", ScanMetadata()),
        (" , ,", ScanMetadata()),
    ],
)
def test_prompts_as_people_write_them(text, expected):
    assert from_prompt(text, strict=True) == expected


def test_unknown_parts_are_listed_and_kept_and_refused_when_strict(caplog):
    text = "left Knee with effusion, PDFS, 2-D, TE: 33"
    metadata, unknown = parse_prompt(text)
    assert metadata == ScanMetadata("knee", contrast="PDFS", te=33)
    assert unknown == ("left", "with effusion", "2-D")
    with caplog.at_level(logging.WARNING):
        assert from_prompt(text) == metadata
        assert "'2-D'" in caplog.text
        caplog.clear()
        assert canonical_prompt(text) == "knee, PDFS, TE: 33, left, with effusion, 2-D"
    assert "'left', 'with effusion', '2-D'" in caplog.text
    with pytest.raises(InputError, match="'left', 'with effusion', '2-D'"):
        from_prompt(text, strict=True)


def test_what_the_prior_has_not_seen_is_named_once_for_each_prompt(caplog):
    for _ in range(3):
        assert canonical_prompt("T1 mprage, links") == "T1, Sequence: MPRAGE, links"
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "'links'" in caplog.text
    assert "sequence 'MPRAGE'" in caplog.text
    canonical_prompt("T1 mprage, rechts")
    assert len(caplog.records) == 3
    caplog.clear()
    canonical_prompt(FASTMRI)
    canonical_prompt(SKM_TEA)
    assert not caplog.records


def test_canonical_prompt_is_stable_and_adds_no_pathology():
    once = canonical_prompt("motion, Knee, Pathology: Mass, 2 Edema")
    assert once == "knee, Pathology: 1 Mass, 2 Edema, Other: motion"
    assert canonical_prompt(once) == once
    assert canonical_prompt("Other: knee, Other:, Other: TR: x") == "Other: knee, Other: TR: x"
    assert canonical_prompt("a nice picture") == "a nice picture"
    assert canonical_prompt("") == ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("TR: fast", "could not read the value of TR in 'TR: fast'"),
        ("knee, TR:", "could not read the value of TR in 'TR:'"),
        ("TR: 3150 Hz", "value of TR"),
        ("Sex: unknown", "value of Sex"),
        ("TR: 3000, knee, TR: 2000", r"tr twice, 3000\.0 and 2000\.0"),
        ("T1, T2", "contrast twice, T1 and T2"),
        ("Slice 3.5", r"slice .* whole number.* 3\.5"),
        ("Slice -3", "slice number .* -3"),
        ("Slice 1e999", r"slice number .* 1\.0*e\+999"),
        ("Slice " + "9" * 9999, "slice number .* 100000"),
        ("Slice -" + "9" * 9999, "slice number of 0 or more"),
        ("TR: 1e999", "TR .* finite"),
        ("Flip angle: 400", r"angle .* 400"),
        ("Pathology:", "expected pathology as words"),
        ("Pathology: 0 Mass", "findings .*'0 Mass'"),
        ("Pathology: 100000000 Mass", "findings .* 999"),
        ("Anatomy:", "expected anatomy as words"),
        ("TE: 33 ms, TR: 3.15", "expected TE below TR"),
        ("TR: 3150 s", "plausible are 0.01 to 100000 ms"),
        ("TR nan", "value of TR"),
        ("TE ~30", "value of TE"),
        ("slice 3mm", "value of slice"),
        ("slice 3 mm", "value of slice"),
        ("TR 3000-3500", "value of TR"),
        ("TR/TE 3000/30/3", "as many numbers"),
        ("K\udcf6rper", "UTF-8.* 2"),
        ("\ud83d", "UTF-8"),
        ("knee\0", r"U\+0000 .* 5"),
        ("knee\x1b[31m", r"U\+001B"),
        ("x" * 10**6, "at most 100000 characters, got 1000000"),
    ],
)
def test_unreadable_prompts_are_refused(text, sentence):
    with pytest.raises(InputError, match=sentence):
        from_prompt(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("TR: 3,150 ms", "'TR: 3150 ms' or 'TR: 3.15 ms'"),
        ("knee, TR: 3,150, T2", "'TR: 3150' or 'TR: 3.15'"),
        ("TE: 3,5", "'TE: 3.5'"),
        ("TE 3,50 ms", "'TE: 3.5 ms'"),
        ("TR 3.150,5", "'TR: 3150.5'"),
        ("TR: 3,150.5", "'TR: 3150.5'"),
        ("TR: 1'234", "'TR: 1234'"),
        ("TR: 1’234 ms", "'TR: 1234 ms'"),
        ("TR 3 150", "'TR: 3150'"),
        ("TR 3\u202f150 TE 33", "'TR: 3150'"),
        ("TR: 12,345,678", "'TR: 12345678'"),
        ("B0 1,5T", "'Field strength: 1.5 T'"),
        ("brain, 1,5T", "'1.5 T'"),
        ("flip 12,5°", "'Flip angle: 12.5 °'"),
        ("TR: ３，１５０", "'TR: 3150' or 'TR: 3.15'"),
        ("TE: 33, 66", "'TE: 33.66'"),
        ("Slice 20,5", "one number"),
        ("TR: 3150.0.1", "one number"),
        ("knee, 150 ms", "number '150 ms'"),
        ("knee 5", "number '5'"),
        ("Pathology: Mass, 5", "the name of a quantity"),
        ("TR: 3150 ms, 33 ms", "number '33 ms'"),
    ],
)
def test_numbers_in_other_notations_are_refused_with_what_they_may_mean(text, meant):
    with pytest.raises(InputError) as caught:
        parse_prompt(text)
    assert meant in str(caught.value)


@pytest.mark.parametrize(
    ("text", "known", "kept"),
    [
        ("Slice 20, 3T", {"slice": 20, "field_strength": 3.0}, ()),
        ("TE: 33,3T", {"te": 33.0, "field_strength": 3.0}, ()),
        ("Slice 20, 3 lesions", {"slice": 20}, ("3 lesions",)),
        ("cor_320", {}, ("cor_320",)),
        ("256x256, 0.5 mm pixels", {}, ("256x256", "0.5 mm pixels")),
        ("3-D", {}, ("3-D",)),
    ],
)
def test_digits_after_a_comma_that_are_no_decimals_are_kept(text, known, kept):
    assert parse_prompt(text) == (ScanMetadata(**known), kept)


def test_other_bad_arguments_are_refused():
    with pytest.raises(InputError, match="string, got int"):
        from_prompt(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"fastmri.*skm-tea"):
        KNEE.to_prompt("xml")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("T2 \N{GRINNING FACE}", "T2, \N{GRINNING FACE}"),
        ("brain axial", "brain, axial"),
        ("PD without FS", "PD, without FS"),
        ("T2 fs", "T2, fs"),
        ("Other: FS, PD", "PD, Other: FS"),
        ("Knie links, STIR", "knee, links, STIR"),
        ("pd_tse_fs_cor_320", "PDFS, Sequence: TurboSpinEcho, cor_320"),
        ("Pathology: Mass, T2 hyperintensity", "Pathology: 1 Mass, 1 T2 hyperintensity"),
    ],
)
def test_parts_keep_what_is_understood_and_what_is_not(text, canonical):
    assert canonical_prompt(text) == canonical
    assert canonical_prompt(canonical) == canonical


@pytest.mark.parametrize("prompt", ["TR: 3,150", ["knee", "K\udcf6rper"], "TR: 30, TE: 33"])
def test_pipelines_refuse_a_prompt_before_they_work(prompt):
    with pytest.raises(InputError, match=r"thousands|UTF-8|below TR"):
        check_prompts(prompt, 2)


def test_letters_that_only_look_alike_do_not_match():
    assert parse_prompt("tſe, \N{KELVIN SIGN}nee")[1] == ("tſe", "\N{KELVIN SIGN}nee")
