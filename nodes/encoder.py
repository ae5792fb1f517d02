"""Loading multilingual text encoders."""

from comfy_api.latest import io

from ..culture_core.comfy import (
    load_text_encoder,
    model_files,
    model_path,
    text_encoder_names,
    text_encoder_path,
    text_encoder_state,
)
from .base import check_file, file_fingerprint, problem_of, schema

NO_ADAPTER = "none"


class CultureLoadTextEncoder(io.ComfyNode):
    """A Hugging Face folder or a single file as a CLIP."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CultureLoadTextEncoder",
            display_name="Load Multilingual Text Encoder",
            description="Loads a multilingual text encoder that ComfyUI's own loaders do not know: "
            "AltDiffusion, AltCLIP, PEA-Diffusion, multilingual CLIP, XLM-R, BERT, SigLIP2, mT5. Its weights "
            "tell what it is.",
            search_aliases=[
                "e5", "multilingual clip", "load text encoder", "altdiffusion", "altclip", "pea-diffusion",
                "xlm-roberta", "m-clip", "siglip2", "mt5",
            ],
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=text_encoder_names(),
                    tooltip="A Hugging Face folder or .safetensors file in models/text_encoders. "
                    "`python -m culture_core fetch-encoder` fetches multilingual-e5-small (94 languages, "
                    "0.5 GB).",
                ),
                io.Combo.Input(
                    "adapter",
                    options=[NO_ADAPTER, *model_files("culture_adapters")],
                    default=NO_ADAPTER,
                    optional=True,
                    tooltip="A PEA adapter from models/culture_adapters, with which SDXL (or SD 1.5) reads "
                    "this encoder. none: the encoder as it is.",
                ),
            ],
            outputs=[
                io.Clip.Output(
                    display_name="CLIP",
                    tooltip="For image models that were trained on this encoder, or through the adapter.",
                )
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, folder: str | None = None, adapter: str | None = None) -> bool | str:
        return problem_of(
            cls,
            lambda: folder is None or text_encoder_path(folder),
            lambda: adapter == NO_ADAPTER or check_file("culture_adapters", adapter),
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str | None = None, adapter: str | None = None) -> str:
        tower = text_encoder_state(text_encoder_path(folder)) if folder else ""
        own = "" if adapter in (None, NO_ADAPTER) else file_fingerprint("culture_adapters", adapter)
        return f"{tower} {own}"

    @classmethod
    def execute(cls, folder: str, adapter: str = NO_ADAPTER) -> io.NodeOutput:
        extra = None if adapter == NO_ADAPTER else model_path("culture_adapters", adapter)
        return io.NodeOutput(load_text_encoder(text_encoder_path(folder), extra))


NODES = [CultureLoadTextEncoder]
