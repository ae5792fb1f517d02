"""What the nodes share."""

import inspect
from collections.abc import Callable

from comfy_api.latest import io

from ..culture_core.comfy import check_known, file_state, model_files, model_path, source_of
from ..culture_core.cultures import CULTURES

CultureSAEType = io.Custom("CULTURE_SAE")
CultureEnhancerType = io.Custom("CULTURE_ENHANCER")
CulturePairsType = io.Custom("CULTURE_PAIRS")

_LABELS = {f"{culture.name} ({code})": code for code, culture in CULTURES.items()}
_KNOWN = set(inspect.signature(io.Schema).parameters)


def schema(**fields: object) -> io.Schema:
    """A schema in the category `culture`, without the fields that this version of ComfyUI does not know
    yet."""
    return io.Schema(category="culture", **{name: value for name, value in fields.items() if name in _KNOWN})


def culture_code(choice: str) -> str:
    """The code behind a choice: `Japanese (ja)`, `Japanese` or `ja`.

    Raises:
        ValueError: for a culture that the pack does not know.
    """
    for label, code in _LABELS.items():
        if choice in (label, code, CULTURES[code].name):
            return code
    raise ValueError(f"Unknown culture '{choice}': use one of {', '.join(_LABELS)}.")


def culture_input(tooltip: str) -> io.Combo.Input:
    """Which culture; `culture_code` reads the choice."""
    return io.Combo.Input("culture", options=list(_LABELS), tooltip=tooltip)


def problem_of(node: type[io.ComfyNode], *checks: Callable[[], object]) -> bool | str:
    """What `validate_inputs` of a node returns: True, or what the first check that fails says.

    The first of all is whether the pack knows what the graph asks of the node. ComfyUI asks a node only about
    inputs that `validate_inputs` names, and then leaves its own check of those out.
    """
    schema = node.define_schema()  # GET_SCHEMA would write to the class, which ComfyUI has locked by now
    try:
        check_known(schema.node_id, {item.id: getattr(item, "options", None) for item in schema.inputs})
        for check in checks:
            check()
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    return True


def check_file(kind: str, name: str | None) -> None:
    """A chosen file must be there; None comes from a connection, and is known later.

    Raises:
        FileNotFoundError: where it is not; it says where to put it, and where to get it if the workflow does.
    """
    try:
        if name is not None:
            model_path(kind, name)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} {source_of(name)}") from None


def file_input(kind: str, tooltip: str) -> io.Combo.Input:
    """A combo of the files in `models/<kind>`."""
    return io.Combo.Input(
        "file", options=model_files(kind), tooltip=f"{tooltip} From the folder models/{kind}."
    )


def encoder_input(several: str) -> io.String.Input:
    """Which encoders of a CLIP; `several` says what becomes of more than one."""
    return io.String.Input(
        "encoder",
        default="",
        tooltip="For a CLIP with several text encoders: which, such as clip_l or t5xxl, or 'clip_l, clip_g', "
        f"or all. {several} Empty: the largest, which carries most of the prompt.",
    )


def encoders_input() -> io.String.Input:
    """In which encoders of a CLIP a file is used; graphs from before it run without it."""
    return io.String.Input(
        "encoders",
        default="",
        optional=True,
        tooltip="For a CLIP with several text encoders. Empty: the one that the file was made for. all: "
        "every one of its shape. Or names, such as 'clip_l, clip_g'.",
    )


def seed_input(gives: str) -> io.Int.Input:
    """Of a training; `gives` says what equal ones give. A new seed after each run would train anew, and never
    find its checkpoint."""
    return io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFF, control_after_generate=False, tooltip=gives)


def checkpoint_input() -> io.String.Input:
    """Name under which a training keeps its unfinished run."""
    return io.String.Input(
        "checkpoint",
        default="",
        tooltip="A plain name such as 'my-culture', to keep an unfinished run in the output folder, under "
        "culture_checkpoints. Cancel, and queue again with the same settings to go on. It is removed when "
        "the run ends well. Empty: a cancelled run is lost.",
    )


def file_fingerprint(kind: str, name: str | None) -> str:
    """What tells ComfyUI's cache that a chosen file has changed."""
    return file_state(model_path(kind, name)) if name else ""
