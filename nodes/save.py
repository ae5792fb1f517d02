"""Writing culture SAEs and layer enhancers to the output folder, where the loader nodes find them."""

from comfy_api.latest import io, ui
from torch import Tensor

from ..culture_core.comfy import save_to_output
from ..culture_core.files import CultureSAE, EnhancerFile
from .base import CultureEnhancerType, CultureSAEType, problem_of, schema


class CultureSaveSAE(io.ComfyNode):
    """A culture SAE into its file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CultureSaveSAE",
            display_name="Save Culture SAE",
            description="Writes a culture SAE to output/culture_sae as one file that you can share. Nothing "
            "is overwritten. Load Culture SAE lists the file after a press of R.",
            search_aliases=["export", "share"],
            inputs=[
                CultureSAEType.Input("culture_sae", tooltip="From Detect Culture Neurons."),
                *_writing_inputs("culture_sae"),
            ],
            outputs=[_path_output()],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool | str:
        return problem_of(cls)

    @classmethod
    def execute(
        cls,
        culture_sae: CultureSAE,
        filename_prefix: str,
        author: str,
        licence: str,
        description: str,
        preview: Tensor | None = None,
    ) -> io.NodeOutput:
        path = str(save_to_output(culture_sae, filename_prefix, author, licence, description, preview))
        return io.NodeOutput(path, ui=ui.PreviewText(path))


class CultureSaveEnhancer(io.ComfyNode):
    """A layer enhancer into its file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CultureSaveEnhancer",
            display_name="Save Layer Enhancer",
            description="Writes a layer enhancer to output/culture_enhancer as one file that you can share. "
            "Nothing is overwritten. Load Layer Enhancer lists the file after a press of R.",
            search_aliases=["export", "share"],
            inputs=[
                CultureEnhancerType.Input("culture_enhancer", tooltip="From Train Layer Enhancer."),
                *_writing_inputs("culture_enhancer"),
            ],
            outputs=[_path_output()],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool | str:
        return problem_of(cls)

    @classmethod
    def execute(
        cls,
        culture_enhancer: EnhancerFile,
        filename_prefix: str,
        author: str,
        licence: str,
        description: str,
        preview: Tensor | None = None,
    ) -> io.NodeOutput:
        path = str(save_to_output(culture_enhancer, filename_prefix, author, licence, description, preview))
        return io.NodeOutput(path, ui=ui.PreviewText(path))


def _writing_inputs(kind: str) -> list[io.Input]:
    return [
        io.String.Input(
            "filename_prefix",
            default="my-culture",
            tooltip=f"Name of the file in output/{kind}, also with a folder: 'thai/first'. A number is "
            "added.",
        ),
        io.String.Input("author", default="", tooltip="Who made it. Empty: what the file says already."),
        io.String.Input(
            "licence",
            default="",
            tooltip="What others may do with it, such as 'CC-BY-4.0'. Empty: what the file says already.",
        ),
        io.String.Input(
            "description",
            default="",
            multiline=True,
            tooltip="What it is good for, with which model, at which strength. Empty: what the file says "
            "already.",
        ),
        io.Image.Input(
            "preview",
            optional=True,
            tooltip="A picture to keep in the file, such as a sheet from Culture Grid. A batch becomes a "
            "sheet. Scaled down to 1024 pixels. Empty: what the file has already.",
        ),
    ]


def _path_output() -> io.String.Output:
    return io.String.Output("path", display_name="path", tooltip="Where the file is.")


NODES = [CultureSaveSAE, CultureSaveEnhancer]
