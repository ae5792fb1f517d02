"""Asking a vision-language model a question about a picture, or without one.

Two kinds answer alike: `vlm.server.ServerVLM`, any server that speaks OpenAI's protocol, and
`vlm.local.LocalVLM`, Qwen3-VL on this machine. Code that asks takes a `VLM` and knows neither;
`open_vlm` makes the one that this machine is configured for.
"""

from .base import VLM, Reply, VLMError, VLMRefusal
from .config import open_vlm

__all__ = ["VLM", "Reply", "VLMError", "VLMRefusal", "open_vlm"]
