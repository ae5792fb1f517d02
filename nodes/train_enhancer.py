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
            description="Trains a layer enhancer: neutral prompts go in, pictures of a culture are what the "
            "image model shall see. Model, VAE and CLIP stay as they are. Newer versions of ComfyUI let no "
            "gradients through Llama-like text encoders; then, and for several GPUs, use the command "
            "`python -m culture_core train-enhancer`. "
            "With a checkpoint name, a run that you cancel goes on where it stopped when you queue it again "
            "with the same settings.",
            search_aliases=["culture", "enhancer", "training", "fine-tuning"],
            inputs=[
                io.Model.Input("model", tooltip="The image model that the enhancer is for."),
                io.Vae.Input("vae", tooltip="The image model's VAE, with its encoder."),
                io.Clip.Input("clip", tooltip="The text encoder. LoRAs and patches on it count."),
                CulturePairsType.Input(
                    "culture_pairs",
                    tooltip="From Load Prompt Pairs, with 'image' entries. The neutral prompts are used. "
                    "Mix in pairs with plain pictures, or everything takes on the culture.",
                ),
                io.String.Input(
                    "pictures",
                    default="",
                    tooltip="Folder inside ComfyUI's input folder that the pairs' 'image' paths begin in. "
                    "Empty: the input folder itself.",
                ),
                io.Int.Input(
                    "layer",
                    default=11,
                    min=0,
                    max=999,
                    tooltip="Which layer, counted from 0. Connect the layer of Probe Layer.",
                ),
                io.Combo.Input(
                    "loss",
                    options=list(LOSSES),
                    default=LOSSES[1],
                    tooltip="latent: the model's guess against the picture's latent. pixel: the same "
                    "decoded, the paper's; takes more memory. denoise: what the model was trained with.",
                ),
                io.Int.Input(
                    "size",
                    default=512,
                    min=16,
                    max=4096,
                    step=16,
                    tooltip="Edge of the pictures, pixels: what the model was made for, 512 or 1024.",
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
                    tooltip="Training steps. 2000 is the paper's.",
                ),
                io.Int.Input(
                    "accumulate",
                    default=1,
                    min=1,
                    max=1024,
                    tooltip="Pictures a step, one after the other. 4 to 16 are steadier and slower.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=5e-5,
                    min=1e-7,
                    max=1.0,
                    step=1e-6,
                    round=1e-8,
                    tooltip="0.00005 is the paper's. Small models bear 0.001.",
                ),
                io.Float.Input(
                    "ema",
                    default=0.0,
                    min=0.0,
                    max=0.9999,
                    step=0.001,
                    round=0.0001,
                    tooltip="The enhancer ends as a moving average of this decay; 0.99 is smoother. 0: off.",
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
                    tooltip="What model, text encoder and VAE compute in; the enhancer keeps float32. "
                    "as loaded: what ComfyUI uses for them. bfloat16: faster on new cards, gradients "
                    "a little coarser. Use it with gradient_checkpointing: without, a bfloat16 copy of "
                    "every weight is kept as well, which may cost more memory than it spares.",
                ),
                io.Boolean.Input(
                    "gradient_checkpointing",
                    default=False,
                    optional=True,
                    tooltip="On: the blocks of the models compute their activations a second time instead of "
                    "keeping them. Much less memory for about a third more time, and the same result. Turn "
                    "it on where a training runs out of memory.",
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
