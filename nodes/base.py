"""What the nodes share."""

import inspect

from comfy_api.latest import io

from ..culture_core.comfy import file_state, model_files, model_path

CultureSAEType = io.Custom("CULTURE_SAE")
CultureEnhancerType = io.Custom("CULTURE_ENHANCER")
CulturePairsType = io.Custom("CULTURE_PAIRS")

_KNOWN = set(inspect.signature(io.Schema).parameters)


def schema(**fields: object) -> io.Schema:
    """A schema in the category `culture`, without the fields that this version of ComfyUI does not know
    yet."""
    return io.Schema(category="culture", **{name: value for name, value in fields.items() if name in _KNOWN})


def file_input(kind: str, tooltip: str) -> io.Combo.Input:
    """A combo of the files in `models/<kind>`."""
    return io.Combo.Input(
        "file", options=model_files(kind), tooltip=f"{tooltip} From the folder models/{kind}."
    )


def encoder_input() -> io.String.Input:
    """Which encoder of a CLIP."""
    return io.String.Input(
        "encoder",
        default="",
        tooltip="Only for a CLIP with several text encoders: which one, such as clip_l or "
        "clip_g. Leave empty otherwise.",
    )


def file_fingerprint(kind: str, name: str | None) -> str:
    """What tells ComfyUI's cache that a chosen file has changed."""
    return file_state(model_path(kind, name)) if name else ""
