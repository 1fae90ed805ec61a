"""Loading and building of :class:`ContextMRIPipeline`."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from ctxrecon.errors import InputError
from ctxrecon.pipelines.context_mri import ContextMRIPipeline
from ctxrecon.priors import build_scheduler, build_text_encoder, build_unet
from ctxrecon.priors.factory import BLOCK_OUT_CHANNELS
from ctxrecon.priors.tokenizer import build_tokenizer

logger = logging.getLogger(__name__)

_PUBLISHED_UNETS = ("fastmri", "skm-tea")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_VARIANT = re.compile(r"(?:diffusion_pytorch_)?model\.([\w-]+)\.safetensors")
_PICKLED = {".bin", ".pt", ".pth", ".ckpt"}
_HUB_FILES = ["*.json", "*.txt", "*.safetensors"]


def shipped_prior() -> Path:
    """Folder of the small prior that comes with the package."""
    import ctxrecon.checkpoints

    return Path(ctxrecon.checkpoints.__file__).parent / "prior"


def load_prior(
    path: str | Path | None = None,
    *,
    subfolder: str | None = None,
    scheduler: str | Path | None = None,
    text_encoder: str | Path | None = None,
    tokenizer: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
) -> ContextMRIPipeline:
    """Load a prior.

    Args:
        path: a folder or a hub repository (``"owner/name"``); the prior that comes with the
            package by default. Two layouts are read: a diffusers pipeline folder (``unet/``,
            ``scheduler/``, ``text_encoder/``, ``tokenizer/``), and that of the published
            ``DHCAI/ContextMRI``, whose U-Nets lie in ``fastmri/`` and ``skm-tea/``.
        subfolder: of the U-Net, where there are several.
        scheduler: folder with a ``scheduler_config.json``, where ``path`` has no ``scheduler/``.
        text_encoder: folder or hub repository, where ``path`` has no ``text_encoder/``.
        tokenizer: likewise.
        dtype: of U-Net and text encoder, whatever they are stored in.
        device: where to put them; the CPU by default.

    Raises:
        InputError: a missing, damaged or unsuitable part, each in a sentence of its own.
    """
    root = shipped_prior() if path is None else _folder(path, subfolder)
    unet_folder = _unet_folder(root, subfolder)
    scheduler_folder = _part(root, "scheduler", scheduler)
    text_folder = _part(root, "text_encoder", text_encoder)
    tokenizer_folder = _part(root, "tokenizer", tokenizer)

    config = _config(unet_folder, "config.json")
    channels = (config.get("in_channels"), config.get("out_channels"))
    if channels != (2, 2):
        raise InputError(
            f"expected a U-Net with 2 channels in and out (real, imaginary) in {unet_folder}, "
            f"got {channels[0]} and {channels[1]}"
        )
    _config(scheduler_folder, "scheduler_config.json")
    unet = _load_model(UNet2DConditionModel, unet_folder, dtype)
    encoder, words = load_text_encoder(text_folder, tokenizer=tokenizer_folder, dtype=dtype)
    needed = config.get("encoder_hid_dim") or config.get("cross_attention_dim")
    if encoder.config.hidden_size != needed:
        raise InputError(
            f"the U-Net in {unet_folder} takes text states of width {needed}, but the text "
            f"encoder in {text_folder} gives {encoder.config.hidden_size}: give the text encoder "
            "that it was trained with"
        )
    # Whatever scheduler was trained with, sampling needs its betas and prediction type only.
    pipeline = ContextMRIPipeline(
        # Convolutions are faster so, by an eighth on CPUs and more in half precision.
        unet=unet.eval().to(memory_format=torch.channels_last),
        scheduler=DDIMScheduler.from_pretrained(str(scheduler_folder)),
        text_encoder=encoder,
        tokenizer=words,
    )
    return pipeline if device is None else pipeline.to(device)


def load_text_encoder(
    path: str | Path,
    *,
    tokenizer: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[CLIPTextModel, CLIPTokenizer]:
    """Load a text encoder with its tokenizer.

    Args:
        path: a folder or a hub repository: of a CLIP (``"openai/clip-vit-large-patch14"``), one
            that ``training/train_clip.py`` wrote, or any with ``text_encoder/`` and
            ``tokenizer/``.
        tokenizer: where ``path`` has none.
        dtype: of the text encoder.

    Raises:
        InputError: a missing or damaged part.
    """
    text_folder = _part(Path(), "text_encoder", path)
    _config(text_folder, "config.json")
    encoder = _load_model(CLIPTextModel, text_folder, dtype)
    folder = _part(Path(), "tokenizer", path if tokenizer is None else tokenizer)
    return encoder.eval(), _load_tokenizer(folder)


def build_pipeline(
    *,
    block_out_channels: tuple[int, ...] = BLOCK_OUT_CHANNELS,
    sample_size: int = 128,
    seed: int = 0,
) -> ContextMRIPipeline:
    """A pipeline of small, randomly initialised networks, to be trained.

    Args:
        block_out_channels: see :func:`ctxrecon.priors.build_unet`.
        sample_size: training matrix size.
        seed: of the initial weights.
    """
    tokenizer = build_tokenizer()
    encoder = build_text_encoder(
        len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        seed=seed,
    )
    unet = build_unet(block_out_channels=block_out_channels, sample_size=sample_size, seed=seed)
    return ContextMRIPipeline(
        unet=unet.eval(),
        scheduler=build_scheduler(),
        text_encoder=encoder,
        tokenizer=tokenizer,
    )


def _folder(path: str | Path, subfolder: str | None = None) -> Path:
    """A local folder, downloaded first if ``path`` names a hub repository."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise InputError(f"expected a checkpoint folder, got the file {folder}")
    if not (isinstance(path, str) and _HUB_ID.fullmatch(path)):
        raise InputError(f"there is no checkpoint folder {folder}: check the path")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    skipped = [f"{name}/*" for name in _PUBLISHED_UNETS if subfolder and name != subfolder]
    logger.info("no local folder %s: looking for it on the hub", path)
    try:
        return Path(
            snapshot_download(path, allow_patterns=_HUB_FILES, ignore_patterns=skipped or None)
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise InputError(
            f"{path} is no local folder, and the hub did not give it "
            f"({type(error).__name__}): check the name and the connection, or give a local folder"
        ) from error


def _unet_folder(root: Path, subfolder: str | None) -> Path:
    if subfolder is not None:
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
            f"{root} holds several U-Nets: choose one with subfolder='{published[0]}' or "
            f"subfolder='{published[1]}'"
        )
    logger.info("taking the U-Net in %s/", published[0])
    return root / published[0]


def _part(root: Path, name: str, given: str | Path | None) -> Path:
    """Folder of one part of the checkpoint: the one given, or ``root / name``."""
    if given is not None:
        folder = _folder(given)
        return folder / name if (folder / name).is_dir() else folder
    if not (root / name).is_dir():
        example = "" if name == "scheduler" else " (such as openai/clip-vit-large-patch14)"
        raise InputError(
            f"there is no {name}/ in {root}: give the one the prior was trained with by "
            f"{name}={example}".rstrip("=")
        )
    return root / name


def _config(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise InputError(f"there is no {name} in {folder}: the checkpoint is incomplete")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON ({error}): download it again") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} holds no configuration: expected a JSON object")
    return config


def _load_model(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A model from safetensors only, with every weight it needs."""
    variant = _check_weights(folder)
    try:
        model, info = kind.from_pretrained(
            str(folder),
            dtype=dtype,
            variant=variant,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(
            f"the weights in {folder} do not fit its config.json "
            f"({str(error).splitlines()[0][:200]}): the two belong to different networks"
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise InputError(
            f"the weights in {folder} lack {len(missing)} tensors that config.json asks for, "
            f"such as {missing[0]}: the two belong to different networks"
        )
    return model


def _check_weights(folder: Path) -> str | None:
    """Look into the safetensors files before they are loaded; the variant that they are of."""
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = [file.name for file in folder.iterdir() if file.suffix in _PICKLED]
        if pickled:
            raise InputError(
                f"{folder} holds pickled weights only ({pickled[0]}), which can run code when "
                "loaded: convert them to safetensors first"
            )
        raise InputError(f"there are no weights (*.safetensors) in {folder}")
    for file in files:
        try:
            with safe_open(str(file), framework="pt"):
                pass
        except SafetensorError as error:
            raise InputError(
                f"{file} is truncated or no safetensors file ({error}): download it again"
            ) from error
    variants = [match[1] for file in files if (match := _VARIANT.fullmatch(file.name))]
    return variants[0] if len(variants) == len(files) else None


def _load_tokenizer(folder: Path) -> CLIPTokenizer:
    names = ("tokenizer.json", "vocab.json")
    if not any((folder / name).is_file() for name in names):
        raise InputError(
            f"there is no {' or '.join(names)} in {folder}: the tokenizer is incomplete"
        )
    try:
        return CLIPTokenizer.from_pretrained(str(folder))
    except (ValueError, OSError, TypeError) as error:
        raise InputError(f"the tokenizer in {folder} cannot be read ({error})") from error
