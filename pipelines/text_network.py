"""Base class of the pipelines of reconstruction networks: components and prompts."""

from __future__ import annotations

import logging
from typing import Any

from diffusers import DiffusionPipeline
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from ctxrecon.inference.prompts import check_prompts, check_text_width, prompt_tokens

logger = logging.getLogger(__name__)

FEATURES = 64
"""Number of feature maps at full resolution of the widest network, for the memory estimate."""


class TextNetworkPipeline(DiffusionPipeline):
    """A reconstruction network, with a text encoder and tokenizer if it reads prompts.

    Args:
        reconstructor: Reconstruction network; its ``text_width`` is ``None`` if it ignores prompts.
        text_encoder: Text encoder; ``None`` for networks that ignore the prompt.
        tokenizer: Tokenizer of the text encoder; ``None`` for networks that ignore the prompt.

    Raises:
        InputError: If the network reads prompts and there is no text encoder of its width.
    """

    model_cpu_offload_seq = "text_encoder->reconstructor"
    _optional_components = ["text_encoder", "tokenizer"]  # noqa: RUF012 (read so by diffusers)

    reconstructor: Any
    text_encoder: CLIPTextModel | None
    tokenizer: CLIPTokenizer | None

    def __init__(
        self,
        reconstructor: Any,
        text_encoder: CLIPTextModel | None = None,
        tokenizer: CLIPTokenizer | None = None,
    ) -> None:
        super().__init__()
        check_text_width(reconstructor.text_width, text_encoder, tokenizer)
        self.register_modules(
            reconstructor=reconstructor, text_encoder=text_encoder, tokenizer=tokenizer
        )

    def encode_prompt(self, prompts: list[str]) -> Tensor | None:
        """Encode prompts as embeddings ``(prompts, width)``.

        Returns:
            The embeddings, or ``None`` if the network ignores prompts.

        Raises:
            InputError: If a prompt is longer than the tokenizer's limit.
        """
        if self.reconstructor.text_width is None:
            return None
        assert self.text_encoder is not None
        tokens = prompt_tokens(self.tokenizer, self.text_encoder, prompts)
        return self.text_encoder(tokens.to(self._execution_device)).pooler_output

    def _read_prompts(
        self, prompt: str | list[str] | None, slices: int
    ) -> tuple[list[str] | None, Tensor | None]:
        """Return the prompts that the network reads, one per slice, and their embeddings.

        Raises:
            InputError: If the numbers of prompts and slices differ, or a prompt is too long.
        """
        prompts = check_prompts(prompt, slices)
        embeds = self.encode_prompt(prompts if prompts is not None else [""] * slices)
        if embeds is None and prompts is not None:
            logger.info("this network accepts no prompt: the given one is ignored")
            prompts = None
        return prompts, embeds
