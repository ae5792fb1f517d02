"""Making a layer enhancer: training with pictures, through the image model."""

from comfy_api.latest import io

from ..culture_core.comfy import PRECISIONS, checkpoint_path, train_enhancer_on_model
from ..culture_core.enhancer import EnhancerConfig
from ..culture_core.enhancer_training.losses import LOSSES
from ..culture_core.pairs import PromptPair
from .base import (
    CultureEnhancerType,
    CulturePairsType,
    checkpoint_input,
    encoder_input,
    problem_of,
    schema,
    seed_input,
)


class CultureTrainEnhancer(io.ComfyNode):
    """A layer enhancer, trained with pictures of a culture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CultureTrainEnhancer",
            display_name="Train Layer Enhancer",
            description="Trains a layer enhancer with pictures of a culture: neutral prompts go in, these "
            "pictures are to come out. Model, VAE and CLIP stay as they are.",
            search_aliases=["training", "fine-tuning"],
            inputs=[
                io.Model.Input("model", tooltip="The image model that the enhancer is for."),
                io.Vae.Input("vae", tooltip="The image model's VAE, with its encoder."),
                io.Clip.Input("clip", tooltip="The text encoder, with the LoRAs and patches that are on it."),
                CulturePairsType.Input(
                    "culture_pairs",
                    tooltip="From Load Prompt Pairs, with an 'image' each. Mix in pairs with plain pictures, "
                    "or everything takes on the culture.",
                ),
                io.String.Input(
                    "pictures",
                    default="",
                    tooltip="Folder inside ComfyUI's input folder in which the pairs' pictures are. Empty: "
                    "the input folder itself.",
                ),
                io.Int.Input(
                    "layer",
                    default=11,
                    min=0,
                    max=999,
                    tooltip="Counted from 0. Connect the layer of Probe Layer.",
                ),
                io.Combo.Input(
                    "loss",
                    options=list(LOSSES),
                    default=LOSSES[1],
                    tooltip="latent: the model's guess against the picture's latent. pixel: the same "
                    "decoded, as in the paper, with more memory. denoise: what the model was trained with.",
                ),
                io.Int.Input(
                    "size",
                    default=512,
                    min=16,
                    max=4096,
                    step=16,
                    tooltip="Edge of the pictures in pixels: what the model was made for, 512 or 1024.",
                ),
                io.Int.Input(
                    "bottleneck",
                    default=0,
                    min=0,
                    max=8192,
                    tooltip="Inner width of the enhancer. 0: a quarter of the text encoder's.",
                ),
                io.Int.Input(
                    "steps",
                    default=2000,
                    min=1,
                    max=10_000_000,
                    tooltip="Training steps. 2000 as in the paper.",
                ),
                io.Int.Input(
                    "accumulate",
                    default=1,
                    min=1,
                    max=1024,
                    tooltip="Pictures in a step, one after the other. 4 to 16 are steadier and slower.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=5e-5,
                    min=1e-7,
                    max=1.0,
                    step=1e-6,
                    round=1e-8,
                    tooltip="0.00005 as in the paper. Small models bear 0.001.",
                ),
                io.Float.Input(
                    "ema",
                    default=0.0,
                    min=0.0,
                    max=0.9999,
                    step=0.001,
                    round=0.0001,
                    tooltip="Moving average over the steps: 0.99 is smoother. 0: off.",
                ),
                seed_input("The same seed, pictures and settings give the same enhancer."),
                checkpoint_input(),
                encoder_input("An enhancer belongs to one."),
                # Graphs from before these two run without them.
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default=PRECISIONS[0],
                    optional=True,
                    tooltip="What the models compute in. as loaded: as ComfyUI runs them. bfloat16: faster "
                    "on new cards. Turn the next setting on with it, or it may take more memory.",
                ),
                io.Boolean.Input(
                    "gradient_checkpointing",
                    default=False,
                    optional=True,
                    tooltip="Compute activations twice instead of keeping them: much less memory, about a "
                    "third more time, the same result.",
                ),
            ],
            outputs=[
                CultureEnhancerType.Output(
                    "enhancer",
                    display_name="CULTURE_ENHANCER",
                    tooltip="For Apply Layer Enhancer and Save Layer Enhancer.",
                ),
                io.Image.Output("loss_picture", display_name="loss", tooltip="The loss over the steps."),
                io.String.Output("report", display_name="report", tooltip="What was trained, on what."),
            ],
        )

    @classmethod
    def validate_inputs(cls, checkpoint: str | None = None) -> bool | str:
        return problem_of(cls, lambda: checkpoint_path(checkpoint or ""))

    @classmethod
    def execute(
        cls,
        model: object,
        vae: object,
        clip: object,
        culture_pairs: list[PromptPair],
        pictures: str,
        layer: int,
        loss: str,
        size: int,
        bottleneck: int,
        steps: int,
        accumulate: int,
        learning_rate: float,
        ema: float,
        seed: int,
        checkpoint: str,
        encoder: str,
        precision: str = PRECISIONS[0],
        gradient_checkpointing: bool = False,
    ) -> io.NodeOutput:
        config = EnhancerConfig(
            learning_rate, steps, accumulate, ema or None, checkpoint_every=100, seed=seed
        )
        return io.NodeOutput(
            *train_enhancer_on_model(
                model, vae, clip, culture_pairs, pictures, layer, loss, size, bottleneck, config, checkpoint,
                encoder, precision, gradient_checkpointing,
            )
        )  # fmt: skip


NODES = [CultureTrainEnhancer]
