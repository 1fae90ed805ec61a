"""Reading checkpoint folders: configurations and weights, from safetensors only."""

from __future__ import annotations

import inspect
import logging
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from ctxrecon.checks import check_config, check_parameters
from ctxrecon.errors import InputError
from ctxrecon.files import read_json
from ctxrecon.priors.denoiser import size_multiple
from ctxrecon.priors.factory import PROMPT_LENGTH

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_VARIANT = re.compile(r"(?:diffusion_pytorch_)?model\.([\w-]+)\.safetensors")
_PICKLED = {".bin", ".pt", ".pth", ".ckpt"}
# No trained weight is larger; flipped exponent bits produce finite values above it.
_LARGEST_WEIGHT = 1e6
# Older CLIP configurations have this value; it stands for the largest token id of a text.
_LARGEST_TOKEN = 2
_SCHEDULE = ("prediction_type", "beta_schedule", "num_train_timesteps")
_FLOATS = {"F64", "F32", "F16", "BF16"}
_HUB_FILES = ["*.json", "*.txt", "*.safetensors"]


def open_folder(path: str | Path, skipped: Sequence[str] = ()) -> Path:
    """Return a local folder, after downloading a hub repository without the ``skipped`` folders."""
    if not isinstance(path, str | Path):
        raise InputError(
            f"expected a checkpoint folder or a hub repository as text, got {type(path).__name__}"
        )
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise InputError(f"expected a checkpoint folder, got the file {folder}")
    if not (isinstance(path, str) and _HUB_ID.fullmatch(path)):
        raise InputError(f"there is no checkpoint folder {folder}: check the path")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    logger.info("no local folder %s: trying the hub", path)
    try:
        return Path(
            snapshot_download(
                path,
                allow_patterns=_HUB_FILES,
                ignore_patterns=[f"{name}/*" for name in skipped] or None,
            )
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise InputError(
            f"{path} is not a local folder, and the hub did not provide it "
            f"({type(error).__name__}): check the name and the connection, or pass a local folder"
        ) from error


def part_folder(root: Path, name: str, given: str | Path | None) -> Path:
    """Return the folder of one part of a checkpoint: the given one, or ``root / name``."""
    if given is not None:
        folder = open_folder(given)
        return folder / name if (folder / name).is_dir() else folder
    if not (root / name).is_dir():
        example = "" if name == "scheduler" else " (such as openai/clip-vit-large-patch14)"
        raise InputError(
            f"there is no {name}/ in {root}: pass the one the prior was trained with by "
            f"{name}={example}".rstrip("=")
        )
    return root / name


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """Read the JSON object in ``folder / name``."""
    path = folder / name
    if not path.is_file():
        raise InputError(f"there is no {name} in {folder}: the checkpoint is incomplete")
    config = read_json(path, "the configuration of a network", "download it again")
    check_config(str(path), config)
    return config


def load_model(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    """Load a model with all of its weights, from safetensors only."""
    variant, stored = _check_weights(folder)
    config = read_config(folder, "config.json")
    if kind.__module__.startswith("ctxrecon."):  # library classes gain options with every release
        warn_of_defaults(folder / "config.json", config, kind)
    try:
        if "shape" not in config:  # samplers have one, and their size is that of the images
            check_parameters(str(folder / "config.json"), lambda: _with_new_weights(kind, folder))
        # The argument is torch_dtype in diffusers and dtype in transformers.
        precision = "dtype" if issubclass(kind, CLIPTextModel) else "torch_dtype"
        with _without_bars():
            model, info = kind.from_pretrained(
                str(folder),
                variant=variant,
                use_safetensors=True,
                output_loading_info=True,
                **{precision: dtype},
            )
    except InputError:
        raise
    except Exception as error:  # libraries raise various types for mismatched configurations
        raise InputError(
            f"the weights in {folder} do not fit its config.json ({_said(error)}): the two "
            "belong to different networks"
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise InputError(
            f"the weights in {folder} lack {len(missing)} tensors that config.json requires, "
            f"such as {missing[0]}: the two belong to different networks"
        )
    prefix = f"{getattr(kind, 'base_model_prefix', '')}."  # omitted by some Transformers versions
    stored |= {name.removeprefix(prefix): dtype for name, dtype in stored.items()}
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            _check_values(folder, name, value, stored.get(name, "F32"))
    return model


def _check_values(folder: Path, name: str, value: torch.Tensor, stored: str) -> None:
    """Validate that weights have a floating-point type and plausible values."""
    if stored not in _FLOATS:
        raise InputError(
            f"the weights in {folder} are damaged: {name} is stored as {stored}, expected one of "
            f"{', '.join(sorted(_FLOATS))}; download them again"
        )
    largest = value.abs().max().item() if value.numel() else 0.0
    if not math.isfinite(largest):
        raise InputError(
            f"the weights in {folder} hold NaN or infinite values, in {name}: use an earlier "
            "checkpoint, or a dtype with sufficient range"
        )
    if largest > _LARGEST_WEIGHT:
        raise InputError(
            f"the weights in {folder} hold {largest:.0e} in {name}, expected values up to "
            f"{_LARGEST_WEIGHT:.0e}: they are damaged, download them again or use an earlier "
            "checkpoint"
        )


def _said(error: BaseException) -> str:
    """Return a library's error message in one line of at most 200 characters."""
    return f"{' '.join(str(error).split()) or type(error).__name__:.200}"


def warn_of_defaults(
    path: Path, config: Mapping[str, Any], kind: Any, names: Collection[str] | None = None
) -> None:
    """Log a warning for each option that a configuration omits, although the result depends on it.

    Args:
        path: Path of the configuration, for the log.
        config: Configuration.
        kind: Class whose defaults are used.
        names: Options to check; defaults to all.
    """
    for name, option in inspect.signature(kind.__init__).parameters.items():
        looked_at = option.default is not option.empty if names is None else name in names
        if looked_at and name not in config:
            logger.warning(
                "%s does not state %s: using the default of %r; results are wrong if the model was "
                "trained with another value",
                path,
                name,
                option.default,
            )


def check_unet(unet: UNet2DConditionModel, width: int, where: Path) -> None:
    """Validate that a U-Net can run with its configuration, without computing anything.

    Args:
        unet: U-Net of a prior.
        width: Width of the text states.
        where: Folder of the U-Net, for the message.

    Raises:
        InputError: If it cannot run, or its output is not an image of two channels.
    """
    named = {**dict(unet.named_parameters()), **dict(unet.named_buffers())}
    shapes = {name: value.to("meta") for name, value in named.items()}
    shape = (1, 2, *[4 * size_multiple(unet)] * 2)
    try:
        with torch.no_grad(), torch.device("meta"):
            image, states = torch.zeros(shape), torch.zeros(1, PROMPT_LENGTH, width)
            given = (image.to(unet.dtype), torch.tensor(0), states.to(unet.dtype))
            output = torch.func.functional_call(unet, shapes, given, {"return_dict": False})[0]
    except Exception as error:  # libraries raise various types
        raise InputError(
            f"the U-Net in {where} cannot run with its config.json ({_said(error)}): "
            "download it again"
        ) from error
    if tuple(output.shape) != shape:
        raise InputError(
            f"the U-Net in {where} maps an image {shape} to {tuple(output.shape)}: download its "
            "config.json again"
        )


def _with_new_weights(kind: Any, folder: Path) -> torch.nn.Module:
    if hasattr(kind, "load_config"):  # Diffusers
        return kind.from_config(kind.load_config(str(folder)))
    return kind(kind.config_class.from_pretrained(str(folder)))


@contextmanager
def _without_bars() -> Iterator[None]:
    """Load without the libraries' progress bars, and restore their settings afterwards."""
    from diffusers.utils import logging as diffusers_logging
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    shown = [library for library in libraries if library.is_progress_bar_enabled()]
    hub_is_quiet = are_progress_bars_disabled()
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()
        if hub_is_quiet:  # Transformers also switches the progress bars of the hub
            disable_progress_bars()


def _check_weights(folder: Path) -> tuple[str | None, dict[str, str]]:
    """Inspect the safetensors files before they are loaded.

    Returns:
        The variant of the files, and the stored type of each tensor.
    """
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
    stored: dict[str, str] = {}
    for file in files:
        try:
            with safe_open(str(file), framework="pt") as tensors:
                names = list(tensors.keys())
                stored |= {name: tensors.get_slice(name).get_dtype() for name in names}
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{file} is truncated or not a safetensors file ({_said(error)}): download it again"
            ) from error
    variants = [match[1] for file in files if (match := _VARIANT.fullmatch(file.name))]
    return (variants[0] if len(variants) == len(files) else None), stored


def load_scheduler(folder: Path) -> DDIMScheduler:
    """Load a scheduler with the noise levels and the prediction type of the prior's training."""
    name = "scheduler_config.json"
    config = read_config(folder, name)
    warn_of_defaults(folder / name, config, DDIMScheduler, _SCHEDULE)
    try:
        scheduler = DDIMScheduler.from_pretrained(str(folder))
        betas = scheduler.betas
        valid = len(betas) > 0 and bool(((betas > 0) & (betas <= 1)).all())
        if not valid or len(betas) != scheduler.config.num_train_timesteps:
            raise ValueError("expected a beta between 0 and 1 for each timestep")
    except Exception as error:  # libraries raise various types
        raise InputError(
            f"{folder / name} does not define a valid scheduler ({_said(error)}): download it again"
        ) from error
    return scheduler


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """Load the tokenizer of a folder."""
    names = ("tokenizer.json", "vocab.json")
    if not any((folder / name).is_file() for name in names):
        raise InputError(
            f"there is no {' or '.join(names)} in {folder}: the tokenizer is incomplete"
        )
    try:
        return CLIPTokenizer.from_pretrained(str(folder))
    except Exception as error:  # the tokenizers library raises plain exceptions
        raise InputError(
            f"the tokenizer in {folder} cannot be read ({_said(error)}): download it again"
        ) from error


def check_text_encoder(encoder: CLIPTextModel, tokenizer: CLIPTokenizer, where: Path) -> None:
    """Validate that a text encoder can read the tokens of a tokenizer.

    Args:
        encoder: Text encoder whose states condition a network.
        tokenizer: Tokenizer of the prompts.
        where: Folder of the text encoder, for the message.

    Raises:
        InputError: If there are more tokens than embeddings, the end-of-text tokens differ, or the
            encoder cannot run with its configuration.
    """
    remedy = "pass the tokenizer that the text encoder was trained with"
    if len(tokenizer) > encoder.config.vocab_size:
        raise InputError(
            f"the tokenizer has {len(tokenizer)} tokens, the text encoder in {where} accepts "
            f"{encoder.config.vocab_size}: {remedy}"
        )
    try:
        tokens = tokenizer("", return_tensors="pt").input_ids
        with torch.no_grad():
            encoder(tokens)
    except Exception as error:  # libraries raise various types
        raise InputError(
            f"the text encoder in {where} does not run with its tokenizer ({_said(error)}): "
            f"{remedy}"
        ) from error
    end, wanted = int(tokens[0, -1]), encoder.config.eos_token_id
    if wanted not in (end, _LARGEST_TOKEN):
        raise InputError(
            f"the tokenizer ends a text with the token {end}, the text encoder in {where} expects "
            f"{wanted}: {remedy}"
        )
