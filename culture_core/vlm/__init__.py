"""Asking a vision-language model a question about a picture, or without one.

Two kinds answer alike: `vlm.server.ServerVLM`, any server that speaks OpenAI's protocol, and
`vlm.local.LocalVLM`, Qwen3-VL on this machine. Code that asks takes a `VLM` and knows neither.
"""

from .base import VLM, Reply, VLMError

__all__ = ["VLM", "Reply", "VLMError"]
