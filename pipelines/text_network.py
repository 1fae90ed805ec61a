"""What the pipelines of networks that reconstruct have in common: parts and prompts."""

from __future__ import annotations

import logging
from typing import Any

from diffusers import DiffusionPipeline
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from ctxrecon.inference.prompts import check_prompts, check_text_width, prompt_tokens

logger = logging.getLogger(__name__)

FEATURES = 64
"""At full size, of the widest network here; most have fewer."""


class TextNetworkPipeline(DiffusionPipeline):
    """A network, and the text encoder and tokenizer of those that read the prompt.

    Args:
        reconstructor: the network; its ``text_width`` is ``None`` if it reads no prompt.
        text_encoder: of networks that read the prompt; ``None`` for others.
        tokenizer: of the text encoder.

    Raises:
        InputError: a network that reads prompts without a text encoder of its width.
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
        """Embeddings ``(prompts, width)``, or ``None`` for a network that reads none.

        Raises:
            InputError: a prompt that the tokenizer would cut short.
        """
        if self.reconstructor.text_width is None:
            return None
        assert self.text_encoder is not None
        tokens = prompt_tokens(self.tokenizer, self.text_encoder, prompts)
        return self.text_encoder(tokens.to(self._execution_device)).pooler_output

    def _read_prompts(
        self, prompt: str | list[str] | None, slices: int
    ) -> tuple[list[str] | None, Tensor | None]:
        """The prompts that the network reads, one for each slice, and their embeddings.

        Raises:
            InputError: another number of prompts than slices, or one that would be cut short.
        """
        prompts = check_prompts(prompt, slices)
        embeds = self.encode_prompt(prompts if prompts is not None else [""] * slices)
        if embeds is None and prompts is not None:
            logger.info("this network reads no prompt: it is left aside")
            prompts = None
        return prompts, embeds
