"""Loading of pipeline components from untrusted checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from ctxrecon.checks import as_dtype
from ctxrecon.errors import InputError
from ctxrecon.loading.folders import (
    check_text_encoder,
    check_unet,
    load_model,
    load_scheduler,
    load_tokenizer,
    open_folder,
    part_folder,
    read_config,
)
from ctxrecon.masks.learned import SAMPLERS
from ctxrecon.priors import build_scheduler, build_text_encoder, build_unet
from ctxrecon.priors.factory import BLOCK_OUT_CHANNELS
from ctxrecon.priors.tokenizer import build_tokenizer
from ctxrecon.reconstructors import MULTI_CONTRAST, RECONSTRUCTORS, CrossModal
from ctxrecon.tasks import TASK_NETWORKS, ImageDecoder, T2StarMLP

logger = logging.getLogger(__name__)

_PUBLISHED_UNETS = ("fastmri", "skm-tea")
_CROSS_MODAL = {"cross_modal": CrossModal}


def shipped_prior() -> Path:
    """Return the folder of the small prior shipped with the package."""
    return _shipped() / "prior"


def shipped_reconstructor() -> Path:
    """Return the folder of the small unrolled network shipped with the package."""
    return _shipped() / "reconstructor"


def _shipped() -> Path:
    import ctxrecon.checkpoints

    return Path(ctxrecon.checkpoints.__file__).parent


def prior_components(
    path: str | Path | None = None,
    *,
    subfolder: str | None = None,
    scheduler: str | Path | None = None,
    text_encoder: str | Path | None = None,
    tokenizer: str | Path | None = None,
    dtype: torch.dtype | str = torch.float32,
) -> dict[str, Any]:
    """Load U-Net, scheduler, text encoder and tokenizer of a diffusion prior, by name.

    Args:
        path: Folder or hub repository; defaults to the shipped prior.
        subfolder: Subfolder of the U-Net, required if there are several.
        scheduler: Folder with ``scheduler_config.json``, if ``path`` has no ``scheduler/``.
        text_encoder: Folder or hub repository, if ``path`` has no ``text_encoder/``.
        tokenizer: Folder or hub repository, if ``path`` has no ``tokenizer/``.
        dtype: Precision of U-Net and text encoder.

    Raises:
        InputError: If a component is missing, damaged or incompatible.
    """
    dtype = as_dtype(dtype)
    root = shipped_prior() if path is None else open_folder(path, _others(subfolder))
    unet_folder = _unet_folder(root, subfolder)
    scheduler_folder = part_folder(root, "scheduler", scheduler)
    text_folder = part_folder(root, "text_encoder", text_encoder)
    tokenizer_folder = part_folder(root, "tokenizer", tokenizer)

    config = read_config(unet_folder, "config.json")
    channels = (config.get("in_channels"), config.get("out_channels"))
    if channels != (2, 2):
        raise InputError(
            f"expected a U-Net with 2 channels in and out (real, imaginary) in {unet_folder}, "
            f"got {channels[0]} and {channels[1]}"
        )
    unet = load_model(UNet2DConditionModel, unet_folder, dtype)
    encoder, words = load_text_encoder(text_folder, tokenizer=tokenizer_folder, dtype=dtype)
    needed = config.get("encoder_hid_dim") or config.get("cross_attention_dim")
    if encoder.config.hidden_size != needed:
        raise InputError(
            f"the U-Net in {unet_folder} takes text states of width {needed}, but the text "
            f"encoder in {text_folder} returns {encoder.config.hidden_size}: pass the text encoder "
            "that it was trained with"
        )
    check_unet(unet, needed, unet_folder)
    # DDIM sampling only needs the betas and the prediction type of the training scheduler.
    return {
        # Convolutions in this format are an eighth faster on CPUs, and more in half precision.
        "unet": unet.eval().to(memory_format=torch.channels_last),
        "scheduler": load_scheduler(scheduler_folder),
        "text_encoder": encoder,
        "tokenizer": words,
    }


def reconstructor_components(
    path: str | Path | None = None, *, dtype: torch.dtype | str = torch.float32
) -> dict[str, Any]:
    """Load a reconstruction network, with its text encoder and tokenizer if it reads prompts.

    Args:
        path: Folder or hub repository; defaults to the shipped network.
        dtype: Precision of the networks.

    Raises:
        InputError: If a component is missing, damaged or incompatible.
    """
    root = shipped_reconstructor() if path is None else open_folder(path)
    return _networks(root, RECONSTRUCTORS, as_dtype(dtype))


def joint_components(
    path: str | Path, *, dtype: torch.dtype | str = torch.float32
) -> dict[str, Any]:
    """Load a mask sampler and the reconstructor trained with it, with their components.

    Args:
        path: Folder or hub repository.
        dtype: Precision of the reconstructor and the text encoder.

    Raises:
        InputError: If a component is missing, damaged or incompatible.
    """
    dtype = as_dtype(dtype)
    root = open_folder(path)
    sampler = _one_of(root, "sampler", SAMPLERS, torch.float32, "train_sampler.py")
    networks = _networks(root, {**RECONSTRUCTORS, **MULTI_CONTRAST}, dtype)
    relaxometer = None
    if (root / "relaxometer").is_dir():
        relaxometer = load_model(T2StarMLP, root / "relaxometer", torch.float32)
    index = read_config(root, "model_index.json")
    if "contrasts" not in index:
        logger.warning(
            "%s does not state contrasts: using the default of 1; results are wrong if the model "
            "was trained with another number",
            root / "model_index.json",
        )
    contrasts = index.get("contrasts", 1)
    if not isinstance(contrasts, int) or contrasts < 1:
        raise InputError(f"expected a number of contrasts in {root}, got {contrasts!r}")
    return {**networks, "sampler": sampler, "relaxometer": relaxometer, "contrasts": contrasts}


def task_components(
    path: str | Path, *, dtype: torch.dtype | str = torch.float32
) -> dict[str, Any]:
    """Load a mask sampler and the task network trained with it, with their components.

    Args:
        path: Folder or hub repository.
        dtype: Precision of the networks except the sampler.

    Raises:
        InputError: If a component is missing, damaged or incompatible.
    """
    dtype = as_dtype(dtype)
    root = open_folder(path)
    sampler = _one_of(root, "sampler", SAMPLERS, torch.float32, "train_task.py")
    network = _one_of(root, "network", TASK_NETWORKS, dtype, "train_task.py")
    decoder = None
    if (root / "image_decoder").is_dir():
        decoder = load_model(ImageDecoder, root / "image_decoder", dtype).eval()
    classes = read_config(root, "model_index.json").get("classes", [])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise InputError(f"expected names of classes in {root}, got {classes!r:.80}")
    return {"sampler": sampler, "network": network, "image_decoder": decoder, "classes": classes}


def cross_modal_components(
    path: str | Path, *, dtype: torch.dtype | str = torch.float32
) -> dict[str, Any]:
    """Load a network guided by a reference, with its text encoder and tokenizer if needed.

    Args:
        path: Folder or hub repository.
        dtype: Precision of the networks.

    Raises:
        InputError: If a component is missing, damaged or incompatible.
    """
    root = open_folder(path)
    return _networks(root, _CROSS_MODAL, as_dtype(dtype), "train_cross_modal.py")


def _networks(
    root: Path,
    kinds: Mapping[str, type],
    dtype: torch.dtype,
    script: str = "train_reconstructor.py",
) -> dict[str, Any]:
    """Load the network in ``reconstructor/``, with its text encoder and tokenizer if needed."""
    network = _one_of(root, "reconstructor", kinds, dtype, script)
    if network.text_width is None:
        return {"reconstructor": network, "text_encoder": None, "tokenizer": None}
    encoder, tokenizer = load_text_encoder(
        part_folder(root, "text_encoder", None),
        tokenizer=part_folder(root, "tokenizer", None),
        dtype=dtype,
    )
    return {"reconstructor": network, "text_encoder": encoder, "tokenizer": tokenizer}


def _one_of(
    root: Path, part: str, kinds: Mapping[str, type], dtype: torch.dtype, script: str
) -> Any:
    """Load a model of one of the known classes, as named in its configuration."""
    folder = root / part
    if not folder.is_dir():
        raise InputError(
            f"there is no {part}/ in {root}: expected a checkpoint written by training/{script}"
        )
    name = read_config(folder, "config.json").get("_class_name")
    known = {kind.__name__: kind for kind in kinds.values()}
    if not isinstance(name, str) or name not in known:
        raise InputError(
            f"{folder} contains a {part} of the unknown kind {name!r:.80}: expected one of "
            + ", ".join(known)
        )
    return load_model(known[name], folder, dtype).eval()


def kind_of(path: str | Path, subfolder: str | None = None) -> tuple[str, Path]:
    """Return the kind of a checkpoint, and its folder.

    The kind is "prior", "network", "joint", "cross_modal" or "task".

    Args:
        path: Folder or hub repository.
        subfolder: Subfolder of the requested U-Net, if there are several.

    Raises:
        InputError: If there is no such folder.
    """
    root = open_folder(path, _others(subfolder))
    if (root / "network").is_dir():
        return "task", root
    if not (root / "reconstructor").is_dir():
        return "prior", root
    if (root / "sampler").is_dir():
        return "joint", root
    name = read_config(root / "reconstructor", "config.json").get("_class_name")
    return ("cross_modal" if name == CrossModal.__name__ else "network"), root


def load_text_encoder(
    path: str | Path,
    *,
    tokenizer: str | Path | None = None,
    dtype: torch.dtype | str = torch.float32,
) -> tuple[CLIPTextModel, CLIPTokenizer]:
    """Load a text encoder with its tokenizer.

    Args:
        path: Folder or hub repository: a CLIP model (``"openai/clip-vit-large-patch14"``), one
            written by ``training/train_clip.py``, or any with ``text_encoder/`` and
            ``tokenizer/``.
        tokenizer: Folder or hub repository of the tokenizer, if ``path`` has none.
        dtype: Precision of the text encoder.

    Raises:
        InputError: If a part is missing or damaged, or the two do not match.
    """
    dtype = as_dtype(dtype)
    text_folder = part_folder(Path(), "text_encoder", path)
    read_config(text_folder, "config.json")
    encoder = load_model(CLIPTextModel, text_folder, dtype)
    folder = part_folder(Path(), "tokenizer", path if tokenizer is None else tokenizer)
    words = load_tokenizer(folder)
    check_text_encoder(encoder.eval(), words, text_folder)
    return encoder, words


def new_components(
    *,
    block_out_channels: tuple[int, ...] = BLOCK_OUT_CHANNELS,
    sample_size: int = 128,
    seed: int = 0,
) -> dict[str, Any]:
    """Build the components of a small prior with random weights, for training.

    Args:
        block_out_channels: Channels of each U-Net level; see :func:`ctxrecon.priors.build_unet`.
        sample_size: Matrix size for training.
        seed: Random seed of the initial weights.
    """
    tokenizer = build_tokenizer()
    encoder = build_text_encoder(
        len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        seed=seed,
    )
    unet = build_unet(block_out_channels=block_out_channels, sample_size=sample_size, seed=seed)
    return {
        "unet": unet.eval(),
        "scheduler": build_scheduler(),
        "text_encoder": encoder,
        "tokenizer": tokenizer,
    }


def _others(subfolder: str | None) -> list[str]:
    """Return the published U-Nets that need not be downloaded."""
    return [name for name in _PUBLISHED_UNETS if subfolder and name != subfolder]


def _unet_folder(root: Path, subfolder: str | None) -> Path:
    if subfolder is not None:
        if not isinstance(subfolder, str):
            raise InputError(f"expected subfolder as text, got {type(subfolder).__name__}")
        folder = root / subfolder
        if not folder.is_dir():
            raise InputError(f"there is no subfolder {subfolder!r} in {root}")
        return folder
    if (root / "unet").is_dir():
        return root / "unet"
    published = [name for name in _PUBLISHED_UNETS if (root / name).is_dir()]
    if not published:
        raise InputError(
            f"there is no U-Net in {root}: expected a folder unet/, or one of "
            + ", ".join(f"{name}/" for name in _PUBLISHED_UNETS)
        )
    if len(published) > 1:
        raise InputError(
            f"{root} contains several U-Nets: choose one with subfolder='{published[0]}' or "
            f"subfolder='{published[1]}'"
        )
    logger.info("using the U-Net in %s/", published[0])
    return root / published[0]
