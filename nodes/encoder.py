"""Loading multilingual text encoders."""

from comfy_api.latest import io

from ..culture_core.comfy import load_text_encoder, text_encoder_folder, text_encoder_folders
from .base import schema


class CultureLoadTextEncoder(io.ComfyNode):
    """A Hugging Face folder as a CLIP."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CultureLoadTextEncoder",
            display_name="Load Multilingual Text Encoder",
            description="Loads a multilingual text encoder that ComfyUI's own loaders do not know, as a "
            "CLIP.",
            search_aliases=["e5", "multilingual clip", "load text encoder"],
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=text_encoder_folders(),
                    tooltip="Folder in models/text_encoders with config.json, model.safetensors and "
                    "tokenizer.json. multilingual-e5-small (94 languages, 0.5 GB on disk) is fetched by "
                    "`python -m culture_core fetch-encoder`.",
                ),
            ],
            outputs=[
                io.Clip.Output(
                    display_name="CLIP",
                    tooltip="For models that were trained on this encoder, such as the miniature.",
                )
            ],
        )

    @classmethod
    def execute(cls, folder: str) -> io.NodeOutput:
        return io.NodeOutput(load_text_encoder(text_encoder_folder(folder)))


NODES = [CultureLoadTextEncoder]
