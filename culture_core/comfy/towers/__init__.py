"""Text towers that ComfyUI has no loader for, made of ComfyUI's own modules.

A tower is a *trunk* (BERT, XLM-R, SigLIP or T5), which ComfyUI's classes compute, and a *head*, which turns
the trunk's hidden states into context and pooled vector. `files` reads what was published, `detection` tells
from the keys what it is, `modules` computes it and `tokenizers` makes the ids.
"""

from .detection import Tower, detect_tower, for_adapter
from .files import Published, read_published, read_weights, state_of
from .heads import adapter_weights, build_adapter
from .models import TowerClip, TowerPromptTokenizer
from .tokenizers import Tokenizer, find_tokenizer

__all__ = [
    "Published",
    "Tokenizer",
    "Tower",
    "TowerClip",
    "TowerPromptTokenizer",
    "adapter_weights",
    "build_adapter",
    "detect_tower",
    "find_tokenizer",
    "for_adapter",
    "read_published",
    "read_weights",
    "state_of",
]
