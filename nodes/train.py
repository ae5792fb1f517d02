"""Making a culture SAE: training on a text encoder's layer, and finding the neurons of cultures."""

from comfy_api.latest import io

from ..culture_core.comfy import CONTRASTS, checkpoint_path, detect_neurons_in_clip, train_sae_on_clip
from ..culture_core.encoders import ATTENTION_OUTPUT, HIDDEN_STATE
from ..culture_core.files import MAX_LATENTS, CultureSAE
from ..culture_core.pairs import PromptPair
from ..culture_core.sae import SAEConfig
from ..culture_core.sae.config import PRECISIONS
from .base import (
    CulturePairsType,
    CultureSAEType,
    checkpoint_input,
    encoder_input,
    problem_of,
    schema,
    seed_input,
)


class CultureTrainSAE(io.ComfyNode):
    """A sparse autoencoder of one layer of a text encoder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CultureTrainSAE",
            display_name="Train Culture SAE",
            description="Trains a sparse autoencoder (SAE) on what a layer of the text encoder says about "
            "the words of your prompts. The encoder stays as it is. Follow with Detect Culture Neurons.",
            search_aliases=["sparse autoencoder", "training", "dictionary learning"],
            inputs=[
                io.Clip.Input(
                    "clip",
                    tooltip="The text encoder to train on, without patches of this pack.",
                ),
                CulturePairsType.Input(
                    "culture_pairs", tooltip="From Load Prompt Pairs. Both prompts of each pair are used."
                ),
                io.Int.Input(
                    "layer",
                    default=11,
                    min=0,
                    max=999,
                    tooltip="Counted from 0. Connect the layer of Probe Layer, or take one at two thirds of "
                    "the encoder's depth.",
                ),
                io.Combo.Input(
                    "feature",
                    options=[HIDDEN_STATE, ATTENTION_OUTPUT],
                    default=HIDDEN_STATE,
                    tooltip="hidden_state: what leaves the layer, which moves pictures most. "
                    "attention_output: what its attention adds, as in the paper.",
                ),
                io.Int.Input(
                    "latents",
                    default=4096,
                    min=1,
                    max=MAX_LATENTS,
                    tooltip="Size of the dictionary. 4096 as in the paper. With a few thousand words of text "
                    "take 512 to 2048, or most stay dead.",
                ),
                io.Int.Input(
                    "k",
                    default=32,
                    min=1,
                    max=4096,
                    tooltip="Latents that may be active at once. 32 is usual. Fewer are clearer, 128 rebuild "
                    "more closely.",
                ),
                io.Int.Input(
                    "steps",
                    default=2000,
                    min=1,
                    max=10_000_000,
                    tooltip="Training steps. 1000 to 5000, until the loss is flat.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=256,
                    min=1,
                    max=65536,
                    tooltip="Words in a step. 128 to 1024. More is steadier and slower.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=4e-4,
                    min=1e-6,
                    max=1.0,
                    step=1e-5,
                    round=1e-7,
                    tooltip="0.0004 as in the paper. Lower it where the loss jumps. 0.001 is faster for "
                    "small dictionaries.",
                ),
                seed_input("The same seed, prompts and settings give the same SAE."),
                checkpoint_input(),
                encoder_input("An SAE belongs to one."),
                io.String.Input(
                    "extra_text",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="More prompts to train on, one a line. The more varied, the better. Some "
                    "thousands help.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default=PRECISIONS[0],
                    optional=True,
                    tooltip="bfloat16 and float16 multiply faster on a GPU. The weights stay float32.",
                ),
            ],
            outputs=[
                CultureSAEType.Output(
                    "sae",
                    display_name="CULTURE_SAE",
                    tooltip="For Detect Culture Neurons. It has no cultures yet.",
                ),
                io.Image.Output("loss", display_name="loss", tooltip="The loss over the steps."),
                io.String.Output(
                    "report", display_name="report", tooltip="How good the SAE is, and what to change."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, checkpoint: str | None = None) -> bool | str:
        return problem_of(cls, lambda: checkpoint_path(checkpoint or ""))

    @classmethod
    def execute(
        cls,
        clip: object,
        culture_pairs: list[PromptPair],
        layer: int,
        feature: str,
        latents: int,
        k: int,
        steps: int,
        batch_size: int,
        learning_rate: float,
        seed: int,
        checkpoint: str,
        encoder: str,
        extra_text: str = "",
        precision: str = PRECISIONS[0],
    ) -> io.NodeOutput:
        config = SAEConfig(latents, k, learning_rate, steps, batch_size, seed=seed, precision=precision)
        return io.NodeOutput(
            *train_sae_on_clip(clip, culture_pairs, extra_text, layer, feature, config, checkpoint, encoder)
        )


class CultureDetectNeurons(io.ComfyNode):
    """The latents that belong to each culture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CultureDetectNeurons",
            display_name="Detect Culture Neurons",
            description="Finds the latents of an SAE that are active on a culture's prompts, and not on the "
            "same prompts without the culture. Cultures that the prompt pairs lack are kept.",
            search_aliases=["wfs", "find neurons"],
            inputs=[
                io.Clip.Input("clip", tooltip="With the text encoder that the SAE was made for."),
                CultureSAEType.Input("culture_sae", tooltip="From Train Culture SAE or Load Culture SAE."),
                CulturePairsType.Input(
                    "culture_pairs",
                    tooltip="From Load Prompt Pairs, with every culture to look for. Ten pairs of each give "
                    "a first answer, a hundred one to rely on.",
                ),
                io.Combo.Input(
                    "contrast",
                    options=list(CONTRASTS),
                    default=CONTRASTS[0],
                    tooltip="What a latent's activity is compared with. mean: the average of the other "
                    "cultures. maximum: the nearest culture, for neurons that no other shares. none: "
                    "nothing, as in the paper.",
                ),
                io.Int.Input(
                    "count",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="Neurons of each culture. 0: as many as stand out. 10 to 40 show a culture more "
                    "strongly.",
                ),
                io.Float.Input(
                    "tau",
                    default=0.5,
                    min=0.01,
                    max=10.0,
                    step=0.05,
                    round=0.001,
                    tooltip="Leaves out latents that plain prompts use more than tau times as much as "
                    "cultural ones: they belong to the noun. 0.5 is usual. Higher keeps more.",
                ),
                io.Boolean.Input(
                    "by_effect",
                    default=False,
                    tooltip="Try several counts and contrasts, and keep for each culture what moves "
                    "held-out prompts most. The settings above do not count then. Takes minutes.",
                ),
            ],
            outputs=[
                CultureSAEType.Output(
                    "sae",
                    display_name="CULTURE_SAE",
                    tooltip="For Amplify Culture Neurons and Save Culture SAE.",
                ),
                io.Image.Output(
                    "picture", display_name="picture", tooltip="How active the neurons are (WFS)."
                ),
                io.String.Output("report", display_name="report", tooltip="The figures, culture by culture."),
            ],
        )

    @classmethod
    def validate_inputs(cls, by_effect: bool | None = None) -> bool | str:
        return problem_of(cls)

    @classmethod
    def execute(
        cls,
        clip: object,
        culture_sae: CultureSAE,
        culture_pairs: list[PromptPair],
        contrast: str,
        count: int,
        tau: float,
        by_effect: bool,
    ) -> io.NodeOutput:
        return io.NodeOutput(
            *detect_neurons_in_clip(clip, culture_sae, culture_pairs, contrast, count, tau, by_effect)
        )


NODES = [CultureTrainSAE, CultureDetectNeurons]
