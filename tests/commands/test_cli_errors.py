"""Malformed input through the command line: one sentence each, exit status 2, no traceback."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from ctxrecon.cli import main
from ctxrecon.commands.logs import logged_to_stderr, slice_named
from ctxrecon.errors import one_line

SHAPE = (4, 24, 20)


def _kspace() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal(SHAPE) + 1j * rng.standard_normal(SHAPE)).astype(np.complex64)


def _write_scans(root: Path) -> None:
    kspace = _kspace()
    np.save(root / "scan.npy", kspace)
    undersampled = kspace.copy()
    undersampled[..., ::2] = 0
    np.save(root / "under.npy", undersampled)
    (root / "truncated.npy").write_bytes((root / "scan.npy").read_bytes()[:-100])
    (root / "empty.npy").write_bytes(b"")
    (root / "text.npy").write_text("not an array")
    (root / "scan.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    np.save(root / "real.npy", kspace.real)
    np.save(root / "five.npy", kspace[None, None])
    np.save(root / "zeros.npy", np.zeros_like(kspace))
    np.save(root / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    broken = kspace.copy()
    broken[0, 0, 0] = np.nan
    np.save(root / "nan.npy", broken)
    np.savez(root / "unnamed.npz", data=kspace)
    (root / "damaged.npz").write_bytes((root / "unnamed.npz").read_bytes()[:200])
    np.savez(root / "prompts.npz", kspace=kspace, prompts=np.array(["a", "b"]))
    (root / "text.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"0" * 64)
    (root / "lonely.cfl").write_bytes(b"0" * 64)


def _write_masks_and_maps(root: Path) -> None:
    np.save(root / "mask_empty.npy", np.zeros(20, bool))
    np.save(root / "mask_shape.npy", np.ones(7, bool))
    np.save(root / "mask_values.npy", np.arange(20))
    (root / "mask.png").write_bytes(b"")
    np.save(root / "maps_shape.npy", np.ones((3, 24, 20), np.complex64))
    np.save(root / "maps_flat.npy", np.ones((24, 20), np.complex64))
    np.save(root / "maps_real.npy", np.ones(SHAPE))
    (root / "maps.txt").write_text("maps")


def _write_priors(root: Path, prior: Path) -> None:
    shutil.copytree(prior, root / "prior")

    def variant(name: str) -> Path:
        return Path(shutil.copytree(root / "prior", root / name))

    shutil.rmtree(variant("no_unet") / "unet")
    shutil.rmtree(variant("no_scheduler") / "scheduler")
    shutil.rmtree(variant("no_text_encoder") / "text_encoder")
    shutil.rmtree(variant("no_tokenizer") / "tokenizer")
    for file in (variant("no_words") / "tokenizer").iterdir():
        file.unlink()
    (variant("no_config") / "unet" / "config.json").unlink()
    (variant("no_json") / "unet" / "config.json").write_text("{")
    weights = "unet/diffusion_pytorch_model.safetensors"
    (variant("no_weights") / weights).unlink()
    pickled = variant("pickled") / weights
    pickled.rename(pickled.with_suffix(".bin"))
    cut = variant("cut") / weights
    cut.write_bytes(cut.read_bytes()[:1000])
    config = variant("channels") / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"in_channels": 3}))


def _write_labels(root: Path) -> None:
    (root / "labels.nii").write_text("no image")
    (root / "a_file").write_text("")
    (root / "a_folder").mkdir()
    try:
        import nibabel
    except ImportError:
        return
    for name, volume in (
        ("flat", np.ones((8, 8))),
        ("negative", -np.ones((8, 8, 8))),
        ("no_brain", np.zeros((8, 8, 8))),
    ):
        image = nibabel.Nifti1Image(volume.astype(np.float32), np.eye(4))
        nibabel.save(image, root / f"{name}.nii")


def _reconstruct(*arguments: str, file: str = "scan.npy", out: str = "x.npy") -> list[str]:
    return ["reconstruct", file, "--out", out, *arguments]


def _file(name: str) -> list[str]:
    return _reconstruct("--method", "zero-filled", file=name)


def _plain(*arguments: str, out: str = "x.npy") -> list[str]:
    return _reconstruct("--method", "zero-filled", *arguments, out=out)


def _prior(*arguments: str, name: str = "prior") -> list[str]:
    return _reconstruct("--prior", name, "--steps", "1", "--device", "cpu", *arguments)


def _under(*arguments: str) -> list[str]:
    return _plain("--undersample", "uniform1d", *arguments)


def _simulate(*arguments: str, out: str = "x.npz") -> list[str]:
    return ["simulate", "--out", out, "--shape", "32", "32", *arguments]


LONG = "knee, " + ", ".join(f"Pathology: 1 Meniscus Tear number {i}" for i in range(60))

# name -> (arguments, words of the sentence)
CASES: dict[str, tuple[list[str], str]] = {
    # scan files
    "missing file": (_file("nowhere.npy"), "does not exist"),
    "a folder": (_file("a_folder"), "is a folder"),
    "empty file": (_file("empty.npy"), "is empty"),
    "truncated": (_file("truncated.npy"), "truncated or damaged"),
    "not NumPy": (_file("text.npy"), "has other content"),
    "MATLAB": (_file("scan.mat"), "truncated or damaged"),
    "no extension": (_file("a_file"), "is empty"),
    "real numbers": (_file("real.npy"), "expected complex k-space"),
    "five axes": (_file("five.npy"), "got shape (1, 1, 4, 24, 20)"),
    "only zeros": (_file("zeros.npy"), "only zeros"),
    "pickled objects": (_file("objects.npy"), "never loaded"),
    "not a number": (_file("nan.npy"), "are not finite"),
    "no kspace": (_file("unnamed.npz"), "named 'kspace'"),
    "damaged archive": (_file("damaged.npz"), "is truncated"),
    "prompts for other slices": (_file("prompts.npz"), "expected prompts"),
    "damaged HDF5": (_file("text.h5"), "HDF5"),
    "no BART header": (_file("lonely.cfl"), "lonely.hdr"),
    "info of nothing": (["info", "nothing.h5"], "nothing.h5 does not exist"),
    # slices and outputs
    "slices of words": (_plain("--slices", "all"), "expected --slices as a:b"),
    "three bounds": (_plain("--slices", "1:2:3"), "got '1:2:3'"),
    "no such slice": (_plain("--slices", "5"), "there is no slice 5"),
    "no slice left": (_plain("--slices", "3:3"), "selects none"),
    "unknown format": (_plain(out="x.jpg"), "got .jpg"),
    "no output folder": (_plain(out="none/x.npy"), "folder none"),
    "a file as folder": (_plain(out="a_file"), "it is a file"),
    "demo into a file": (["demo", "--out", "scan.npy"], "into scan.npy"),
    # masks, coil maps, undersampling
    "empty mask": (_plain("--mask", "mask_empty.npy"), "the mask samples nothing"),
    "mask of another size": (_plain("--mask", "mask_shape.npy"), "shape (7,)"),
    "mask of other numbers": (_plain("--mask", "mask_values.npy"), "0 and 1"),
    "mask as a picture": (_plain("--mask", "mask.png"), "mask as .npy"),
    "maps of another scan": (_plain("--coil-maps", "maps_shape.npy"), "does not belong to"),
    "maps of two axes": (_plain("--coil-maps", "maps_flat.npy"), "expected coil maps (coils"),
    "maps of real numbers": (_plain("--coil-maps", "maps_real.npy"), "expected complex coil maps"),
    "maps as text": (_plain("--coil-maps", "maps.txt"), "coil maps as"),
    "acceleration below 1": (_under("--acceleration", "0.5"), "acceleration"),
    "too fast": (_under("--acceleration", "99"), "leaves none of 20 lines"),
    "centre above 1": (_under("--center-fraction", "1.5"), "center_fraction` between 0 and 1"),
    "centre beyond budget": (_under("--center-fraction", "0.5"), "the center alone has 10"),
    "unknown mask": (_plain("--undersample", "spiral"), "unknown mask 'spiral'"),
    "mask and undersample": (_under("--mask", "mask_empty.npy"), "leave --mask out"),
    "already undersampled": (
        _reconstruct("--method", "tv", "--undersample", "uniform1d", file="under.npy"),
        "50 %",
    ),
    # prior and prompt
    "unknown method": (_plain("--method", "magic"), "unknown method 'magic'"),
    "empty prompt": (_prior("--prompt", " "), "the prompt is empty"),
    "subfolder without prior": (_reconstruct("--subfolder", "fastmri"), "give both"),
    "subfolder": (_prior("--subfolder", "knees"), "no subfolder 'knees'"),
    "prompt too long": (_prior("--prompt", LONG), "would be cut off"),
    "TR in words": (_prior("--prompt", "knee, TR: fast"), "value of TR"),
    "negative TE": (_prior("--prompt", "knee, TE: -3"), "expected TE"),
    "two contrasts": (_prior("--prompt", "T1, T2"), "states contrast twice"),
    "unknown dtype": (_prior("--dtype", "int8"), "'int8'"),
    "unknown noise": (_prior("--noise-std", "some"), "'some'"),
    "useless noise": (
        _prior("--noise-std", "0.1", "--solver", "dds"),
        "takes no noise level",
    ),
    "unknown start": (_prior("--start", "l1"), "unknown --start 'l1'"),
    "too strong": (_prior("--start", "tv", "--strength", "2"), "strength"),
    "no steps": (_prior("--steps", "0"), "num_inference_steps"),
    "no samples": (_prior("--samples", "0"), "num_samples 1 or more"),
    "negative guidance": (_prior("--guidance-scale", "-1"), "guidance_scale"),
    "no data weight": (_prior("--solver", "dds:data_weight=0"), "a positive data_weight"),
    "unknown device": (_prior("--device", "abacus"), "'abacus'"),
    "no prior": (_prior(name="nowhere"), "folder nowhere"),
    "a file as prior": (_prior(name="scan.npy"), "file scan.npy"),
    "no U-Net": (_prior(name="no_unet"), "no U-Net"),
    "no scheduler": (_prior(name="no_scheduler"), "there is no scheduler/"),
    "no text encoder": (_prior(name="no_text_encoder"), "text_encoder/"),
    "no tokenizer": (_prior(name="no_tokenizer"), "there is no tokenizer/"),
    "no vocabulary": (_prior(name="no_words"), "the tokenizer is incomplete"),
    "no configuration": (_prior(name="no_config"), "config.json"),
    "damaged configuration": (_prior(name="no_json"), "not valid JSON"),
    "no weights": (_prior(name="no_weights"), "there are no weights"),
    "pickled weights": (_prior(name="pickled"), "holds pickled weights only"),
    "truncated weights": (_prior(name="cut"), "truncated"),
    "three channels": (_prior(name="channels"), "got 3 and 2"),
    # simulate
    "scan as PNG": (_simulate(out="x.png"), ".npz or .h5"),
    "no folder": (_simulate(out="none/x.npz"), "cannot write none/x.npz"),
    "no such anatomy": (_simulate("--anatomy", "elbow"), "elbow"),
    "no such contrast": (_simulate("--contrast", "STIR"), "'brain'"),
    "TR of zero": (_simulate("--tr", "0"), "a repetition time above 0 ms"),
    "matrix of zero": (_simulate("--shape", "0", "32"), "(0, 32)"),
    "no coils": (_simulate("--coils", "0"), "coil"),
    "no signal": (_simulate("--snr", "0"), "expected a positive SNR"),
    "beyond the vertex": (_simulate("--position", "2"), "expected --position from 0 to 1"),
    "no label volume": (_simulate("--labels", "none.nii"), "none.nii"),
    "no NIfTI": (_simulate("--labels", "labels.nii"), "NIfTI"),
    "two-dimensional labels": (_simulate("--labels", "flat.nii"), "expected a 3-D label volume"),
    "negative labels": (_simulate("--labels", "negative.nii"), "invalid labels"),
    "labels without brain": (_simulate("--labels", "no_brain.nii"), "contains no brain"),
}
NEEDS_NIBABEL = {name for name, (arguments, _) in CASES.items() if "--labels" in arguments}


def _run(arguments: list[str]) -> tuple[int, str]:
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            main(arguments)
        except SystemExit as stopped:
            code = stopped.code
    lines = [line for line in errors.getvalue().splitlines() if "error:" in line]
    assert isinstance(code, int)
    return code, "\n".join(lines)


@pytest.fixture(scope="module")
def answers(tmp_path_factory, prior) -> dict[str, tuple[int, str]]:
    """Exit status and error lines of every case, run in one folder."""
    root = tmp_path_factory.mktemp("malformed")
    _write_scans(root)
    _write_masks_and_maps(root)
    _write_priors(root, prior)
    _write_labels(root)
    with _chdir(root):
        return {name: _run(arguments) for name, (arguments, _) in CASES.items()}


@contextlib.contextmanager
def _chdir(folder: Path):
    """``contextlib.chdir``, which Python 3.10 does not have."""
    import os

    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.mark.parametrize("name", CASES)
def test_one_sentence_and_status_2(answers, name):
    if name in NEEDS_NIBABEL:
        pytest.importorskip("nibabel")
    code, line = answers[name]
    assert code == 2
    assert line.startswith("ctxrecon: error: ")
    assert "\n" not in line
    assert CASES[name][1] in line


def test_every_sentence_is_its_own(answers):
    sentences = [line for _, line in answers.values()]
    assert len(set(sentences)) == len(sentences) >= 30


def test_usage_errors_have_status_2_too():
    with contextlib.redirect_stderr(io.StringIO()), pytest.raises(SystemExit) as stopped:
        main(["reconstruct", "scan.npy", "--out", "x.npy", "--steps", "many"])
    assert stopped.value.code == 2


def test_logging_of_the_process_stays_as_it_was(tmp_path, caplog):
    """Other log handlers receive every record unchanged, during a command and afterwards."""
    logger = logging.getLogger("ctxrecon")
    before = logger.level, logger.handlers[:], logger.filters[:], logger.propagate
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), logged_to_stderr():
        for index in range(5):
            with slice_named(index + 3):
                logger.warning("slice 0: scale %d", index)
                logger.info("the same of all")
    assert [line for line in errors.getvalue().splitlines() if "scale" in line] == [
        f"ctxrecon: slice {index + 3}: scale {index}" for index in range(3)
    ]
    assert errors.getvalue().count("further slices") == errors.getvalue().count("of all") == 1
    assert [message for message in caplog.messages if "scale" in message] == [
        f"slice 0: scale {index}" for index in range(5)
    ]
    with contextlib.redirect_stderr(io.StringIO()), pytest.raises(SystemExit):
        main(["info", str(tmp_path / "absent.npz")])
    assert before == (logger.level, logger.handlers, logger.filters, logger.propagate)


def test_a_terminal_obeys_nothing_that_comes_from_a_file(tmp_path, capsys):
    name = tmp_path / "x\x1b[31m\x9b2J.npz"
    np.savez(name, kspace=_kspace()[None], prompts=np.array(["Knee, \x1b]0;title\x07PDFS"]))
    main_status(["info", str(name)])
    main_status(["info", str(name.with_suffix(".npy"))])
    shown = "".join(capsys.readouterr())
    assert not set(shown) & {"\x1b", "\x9b", "\x07"}
    assert "\\x1b[31m" in shown


def main_status(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0)


def test_long_messages_keep_their_beginning_and_end():
    line = one_line("x: " + "9" * 5000 + "\nremove it")
    assert len(line) <= 1000
    assert line.startswith("x: 9")
    assert line.endswith("9 remove it")
