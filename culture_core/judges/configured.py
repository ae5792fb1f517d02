"""The judges that this machine can ask, by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..vlm.config import VLM_KINDS, check_fields, configured, make_vlm
from .base import Judge
from .questions import ROTATIONS

MINIATURE = "miniature"
"""The judge that is always there: the CNN of the examples."""


def judge_names() -> list[str]:
    """Those that are configured (see `vlm.config`), then the miniature's CNN. Loads nothing.

    Raises:
        VLMError: for a configuration that cannot be read.
    """
    return [*(name for name in configured() if name != MINIATURE), MINIATURE]


def open_judge(name: str, seed: int = 0, rotations: int = ROTATIONS) -> Judge:
    """Make a judge ready.

    Args:
        seed: of the order of the options, for judges that are shown some.
        rotations: how often such a judge is asked about a picture.

    Raises:
        ValueError: for an unknown name, or a judge that cannot be made; the message says why.
    """
    if name == MINIATURE:
        from .by_miniature import MiniatureJudge

        return MiniatureJudge()
    entries = configured()
    if name not in entries:
        raise ValueError(f"there is no judge {name!r} on this machine: there are {', '.join(judge_names())}")
    entry = entries[name]
    if entry["kind"] in VLM_KINDS:
        from .by_vlm import VLMJudge

        return VLMJudge(make_vlm(name, entry), seed, rotations)
    return _zero_shot(name, entry)


def _zero_shot(name: str, entry: Mapping[str, Any]) -> Judge:
    from .zero_shot import ZeroShotJudge

    fields = {key: value for key, value in entry.items() if key != "kind"}
    check_fields(name, fields, {"folder"}, {"device", "templates", "descriptions"})
    return ZeroShotJudge(**{**fields, "folder": Path(fields["folder"])})
