"""What the nodes share."""

import functools
import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from comfy_api.latest import io

from ..culture_core.comfy import check_known, file_state, model_files, model_path, source_of
from ..culture_core.cultures import CULTURES

CultureSAEType = io.Custom("CULTURE_SAE")
CultureEnhancerType = io.Custom("CULTURE_ENHANCER")
CulturePairsType = io.Custom("CULTURE_PAIRS")

NO_CULTURE = "none"
CULTURE_LABELS = {f"{culture.name} ({code})": code for code, culture in CULTURES.items()}
_KNOWN = set(inspect.signature(io.Schema).parameters)
_LOCALES = Path(__file__).resolve().parent.parent / "locales"


def schema(*, search_aliases: Sequence[str] = (), **fields: object) -> io.Schema:
    """A schema in the category `culture`, without the fields that this version of ComfyUI does not know
    yet. Node search finds it by its own aliases, and by `search_words`."""
    fields |= {"category": "culture", "search_aliases": [*search_aliases, *search_words()]}
    return io.Schema(**{name: value for name, value in fields.items() if name in _KNOWN})


@functools.cache
def search_words() -> list[str]:
    """What artists type to find any of the nodes: every culture by its names, and words such as "culture",
    "style" and "country" in every language that the pack speaks."""
    names = [
        name
        for culture in CULTURES.values()
        for name in (culture.name, culture.language, culture.autonym, culture.region)
    ]
    return list(dict.fromkeys([*_words_of_languages(), *names]))


def _words_of_languages() -> list[str]:
    files = sorted(_LOCALES.glob("*/main.json"), key=lambda file: (file.parent.name != "en", file))
    return [
        word
        for file in files
        for word in json.loads(file.read_text(encoding="utf-8"))["cultureSearch"].split(", ")
    ]


def culture_code(choice: str) -> str:
    """The code behind a choice: `Japanese (ja)`, `Japanese` or `ja`.

    Raises:
        ValueError: for a culture that the pack does not know.
    """
    for label, code in CULTURE_LABELS.items():
        if choice in (label, code, CULTURES[code].name):
            return code
    raise ValueError(f"Unknown culture '{choice}': use one of {', '.join(CULTURE_LABELS)}.")


def culture_or_none(choice: str) -> str | None:
    """As `culture_code`; None for `none`.

    Raises:
        ValueError: for a culture that the pack does not know.
    """
    return None if choice == NO_CULTURE else culture_code(choice)


def culture_label(code: str | None) -> str:
    """The choice that stands for a culture, or for none."""
    return next((label for label, known in CULTURE_LABELS.items() if known == code), NO_CULTURE)


def culture_input(tooltip: str, none: bool = False) -> io.Combo.Input:
    """Which culture; `culture_code` reads the choice, with `none` as a further one `culture_or_none`."""
    options = [*CULTURE_LABELS, NO_CULTURE] if none else list(CULTURE_LABELS)
    return io.Combo.Input("culture", options=options, tooltip=tooltip)


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


def texts_ui(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Texts in what a node shows: `web/texts.js` puts them under it, and the history has them too. None take
    away those of an earlier run."""
    return {"text": tuple(texts)}


def warnings_ui(warnings: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """As `texts_ui`, marked as warnings."""
    return texts_ui([f"⚠ {warning}" for warning in warnings])


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
        tooltip="For a CLIP with several text encoders: which, such as 'clip_l', 'clip_l, clip_g' or 'all'. "
        f"{several} Empty: the largest, which carries most of the prompt.",
    )


def encoders_input() -> io.String.Input:
    """In which encoders of a CLIP a file is used; graphs from before it run without it."""
    return io.String.Input(
        "encoders",
        default="",
        optional=True,
        tooltip="For a CLIP with several text encoders: names such as 'clip_l, clip_g', or 'all' that have "
        "the shape of the file's. Empty: the one that the file was made for.",
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
        tooltip="A name such as 'my-culture' keeps an unfinished run in output/culture_checkpoints: cancel, "
        "and queue again with the same settings to go on. Empty: a cancelled run is lost.",
    )


def file_fingerprint(kind: str, name: str | None) -> str:
    """What tells ComfyUI's cache that a chosen file has changed."""
    return file_state(model_path(kind, name)) if name else ""
