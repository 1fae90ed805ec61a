"""Builders of small networks from stock Hugging Face classes, used for the shipped prior.

They follow the ContextMRI layout (image U-Net with cross-attention to CLIP text states, two
input and output channels) at a size that trains and runs on a CPU.
"""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPVisionConfig

from ctxrecon.checks import check_whole, is_whole
from ctxrecon.errors import InputError

BLOCK_OUT_CHANNELS = (24, 48, 96, 128, 184)
TEXT_WIDTH = 128
PROMPT_LENGTH = 77
_TEXT_LAYERS, _HEADS = 3, 4
_GROUPS = 8


def build_unet(
    *,
    block_out_channels: tuple[int, ...] = BLOCK_OUT_CHANNELS,
    cross_attention_dim: int = TEXT_WIDTH,
    sample_size: int = 128,
    seed: int = 0,
) -> UNet2DConditionModel:
    """Build a randomly initialized U-Net ``(batch, 2, ny, nx) -> (batch, 2, ny, nx)``.

    The two lowest levels and the middle block attend to the text; the others are convolutional, so
    that the cost at full resolution equals that of a plain U-Net. A pooled text embedding is added
    to the timestep embedding, as in ContextMRI, and thus reaches every level.

    Example:
        >>> from ctxrecon.priors import build_unet
        >>> unet = build_unet(block_out_channels=(8, 16), cross_attention_dim=8)
        >>> unet.config.in_channels, unet.config.out_channels
        (2, 2)

    Args:
        block_out_channels: Channels of each level, multiples of 8; ``ny`` and ``nx`` must be
            multiples of ``2 ** (len(block_out_channels) - 1)``.
        cross_attention_dim: Width of the text encoder's hidden states.
        sample_size: Matrix size for training, stored in the configuration.
        seed: Random seed of the initial weights.

    Raises:
        InputError: If a size is not a whole number, or channels are not multiples of 8.
    """
    whole = isinstance(block_out_channels, tuple | list) and len(block_out_channels) > 0
    if not whole or not all(is_whole(n) and n > 0 and n % _GROUPS == 0 for n in block_out_channels):
        raise InputError(
            f"expected block_out_channels as multiples of {_GROUPS}, one for each level, got "
            f"{block_out_channels!r}"
        )
    check_whole("sample_size", sample_size)
    check_whole("seed", seed, least=0)
    levels = len(block_out_channels)
    attending = [level >= levels - 2 for level in range(levels)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DConditionModel(
            sample_size=sample_size,
            in_channels=2,
            out_channels=2,
            down_block_types=tuple(
                "CrossAttnDownBlock2D" if attend else "DownBlock2D" for attend in attending
            ),
            up_block_types=tuple(
                "CrossAttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attending)
            ),
            block_out_channels=block_out_channels,
            layers_per_block=1,
            norm_num_groups=_GROUPS,
            attention_head_dim=4,
            cross_attention_dim=cross_attention_dim,
            resnet_time_scale_shift="scale_shift",
            addition_embed_type="text",
            addition_embed_type_num_heads=4,
        )


def build_text_encoder(
    vocab_size: int,
    *,
    hidden_size: int = TEXT_WIDTH,
    num_layers: int = _TEXT_LAYERS,
    num_heads: int = _HEADS,
    bos_token_id: int | None = None,
    eos_token_id: int | None = None,
    seed: int = 0,
) -> CLIPTextModel:
    """Build a randomly initialized CLIP text encoder for prompts of 77 tokens.

    Args:
        vocab_size: Number of tokens of the tokenizer.
        hidden_size: Width of the states; the U-Net's ``cross_attention_dim``.
        num_layers: Number of transformer layers.
        num_heads: Number of attention heads, a divisor of ``hidden_size``.
        bos_token_id: Start token; defaults to the last token but one, as in CLIP.
        eos_token_id: End and padding token; defaults to the last token, as in CLIP.
        seed: Random seed of the initial weights.

    Raises:
        InputError: If the seed is not a whole number.
    """
    check_whole("seed", seed, least=0)
    config = _text_config(
        vocab_size,
        hidden_size,
        num_layers,
        num_heads,
        vocab_size - 2 if bos_token_id is None else bos_token_id,
        vocab_size - 1 if eos_token_id is None else eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPTextModel(config).eval()


def _text_config(
    vocab_size: int, hidden_size: int, num_layers: int, num_heads: int, bos: int, eos: int
) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        projection_dim=hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        max_position_embeddings=PROMPT_LENGTH,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=eos,
    )


def build_clip(
    vocab_size: int,
    *,
    image_size: int = 96,
    patch_size: int = 16,
    image_width: int = 192,
    image_layers: int = 4,
    bos_token_id: int,
    eos_token_id: int,
    seed: int = 0,
) -> CLIPModel:
    """Build a randomly initialized CLIP model of magnitude images and prompts.

    Its text half (``clip.text_model``) is that of :func:`build_text_encoder`.

    Args:
        vocab_size: Number of tokens of the tokenizer.
        image_size: Matrix size ``n`` of the images ``(batch, 1, n, n)``.
        patch_size: Patch size of the vision transformer, a divisor of ``image_size``.
        image_width: Width of the vision transformer.
        image_layers: Number of layers of the vision transformer.
        bos_token_id: Start token.
        eos_token_id: End and padding token.
        seed: Random seed of the initial weights.
    """
    text = _text_config(vocab_size, TEXT_WIDTH, _TEXT_LAYERS, _HEADS, bos_token_id, eos_token_id)
    vision = CLIPVisionConfig(
        hidden_size=image_width,
        intermediate_size=4 * image_width,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=image_layers,
        num_attention_heads=_HEADS,
        num_channels=1,
        image_size=image_size,
        patch_size=patch_size,
    )
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=TEXT_WIDTH
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPModel(config)


def build_scheduler(prediction_type: str = "v_prediction") -> DDIMScheduler:
    """Build a cosine schedule of 1000 timesteps, without clipping, for complex images.

    Example:
        >>> from ctxrecon.priors import build_scheduler
        >>> build_scheduler().config.prediction_type
        'v_prediction'
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=prediction_type,
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
