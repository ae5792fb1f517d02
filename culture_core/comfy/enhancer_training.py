"""What the node Train Layer Enhancer calls: an enhancer trained through a MODEL, a VAE and a CLIP."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import comfy.model_management
import comfy.model_sampling
import comfy.sd
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..encoders import HIDDEN_STATE
from ..enhancer import Apply, Batch, EnhancerConfig, LayerEnhancer, train_enhancer
from ..enhancer_training import LOSSES, ImagePairs
from ..files import EnhancerFile
from ..fingerprint import fingerprint_values
from ..pairs import PairError, PromptPair
from ..reports import loss_picture
from ..selection import TokenSelection
from ..splits import ENHANCER_TRAINING, left_out, usable
from .errors import TextEncoderError
from .inputs import expect_all
from .patching import FeatureFunction, patch_clip
from .pictures import image_tensor
from .places import choose_encoders
from .reading import ComfyTextEncoder
from .recomputing import recomputed
from .saving import checkpoint_path
from .texts import for_preview
from .training import TrainingProgress

logger = logging.getLogger(__name__)

AS_LOADED, BFLOAT16 = PRECISIONS = ("as loaded", "bfloat16")
"""What the frozen models compute in."""
_NORMS = ("layer_norm", "layer_norm1", "layer_norm2")
"""Before these, ComfyUI's T5 and CLIP add to the hidden state in place."""
_ALL = TokenSelection("all")


class TrainedEnhancer(NamedTuple):
    """What a training gives."""

    enhancer: EnhancerFile
    picture: Tensor
    """Loss of every step [1, height, width, 3], as ComfyUI passes pictures on."""
    report: str


def train_enhancer_on_model(
    model: ModelPatcher,
    vae: comfy.sd.VAE,
    clip: comfy.sd.CLIP,
    pairs: Sequence[PromptPair],
    pictures: str,
    layer: int,
    loss: str,
    size: int,
    bottleneck: int,
    config: EnhancerConfig,
    checkpoint: str = "",
    encoder_choice: str = "",
    precision: str = AS_LOADED,
    checkpointing: bool = False,
) -> TrainedEnhancer:
    """Train a layer enhancer (eq. 11 to 13): neutral prompts in, the pairs' pictures as targets.

    Model, VAE and CLIP stay as they are. A run that is interrupted goes on from its checkpoint when it is
    started again with the same settings; one that ends well removes it.

    Args:
        pictures: folder inside ComfyUI's input folder that the pairs' `image` paths begin in.
        loss: `pixel`, `latent` or `denoise`, see `culture_core.enhancer_training.ImageLoss`.
        size: edge of the pictures, pixels.
        checkpoint: plain name of the checkpoint in the output folder; empty for none.
        encoder_choice: which encoder, see `choose_encoders`.
        precision: `as loaded`, what ComfyUI computes in, or `bfloat16`, for matrix products. The enhancer and
            the loss are in float32. Without `checkpointing` the weights' copies in bfloat16 are kept too.
        checkpointing: compute activations again instead of keeping them: less memory, a third more time.

    Raises:
        PairError: for pictures that are missing or cannot be read, or pairs of which none may be trained on.
        TextEncoderError: for an encoder that the CLIP does not have, for several, for a layer that the
            conditioning does not depend on, or an encoder that gradients do not get through in ComfyUI.
        ValueError: for a checkpoint of another run, or a model or VAE that cannot be trained with.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: use one of {', '.join(PRECISIONS)}")
    path = checkpoint_path(checkpoint)
    expect_all(pairs, PromptPair, "Load Prompt Pairs")
    keys = choose_encoders(clip, encoder_choice)
    if len(keys) > 1:
        raise TextEncoderError(f"An enhancer is of one encoder: name one of {', '.join(keys)}.")
    encoder = ComfyTextEncoder(clip, keys[0])
    progress = TrainingProgress(0, config.steps, "Enhancer training")
    # Autograd keeps nothing that was made in inference mode.
    with torch.inference_mode(False), torch.enable_grad():
        image = _ImageModel(model, vae, loss)
        found = ImagePairs(usable(pairs, ENHANCER_TRAINING), _picture_folder(pictures), image, size)
        found.encode(lambda *_: comfy.model_management.throw_exception_if_processing_interrupted())
        width = encoder.info.width
        enhancer = LayerEnhancer(width, bottleneck or max(1, width // 4), config.seed).to(image.device)
        patched = _with_enhancer(clip, enhancer, layer, encoder.key)
        parts = [found.digest(), loss, layer, encoder.fingerprint(), image.fingerprint(), encoder.key]
        parts += [] if precision == AS_LOADED else [precision]
        data = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        with ExitStack() as stack:
            stack.enter_context(_trainable(patched, image))
            stack.enter_context(_without_writing_over(encoder.model))
            if checkpointing:
                stack.enter_context(recomputed(encoder.model, image.model, image.vae.first_stage_model))
            stack.enter_context(_told(encoder, path))
            compute = _computing(image.device, precision)
            report = train_enhancer(
                enhancer, found.batches(1, config.seed), compute(_Loss(image, found)), config,
                progress.step_done, path, compute(_through(patched)), data,
            )  # fmt: skip
        enhancer = enhancer.cpu().requires_grad_(False)
    if path is not None:
        path.unlink(missing_ok=True)
    comfy.model_management.soft_empty_cache()
    figures = {
        "loss": loss, "last_loss": report.losses[-1], "config": asdict(config), "size": size,
        "parameters": report.parameters, "pictures": len(found), "data_hash": found.digest(),
        "precision": precision,
    }  # fmt: skip
    file = EnhancerFile(enhancer, layer, encoder.fingerprint(), encoder.key, figures)
    picture = image_tensor([loss_picture(report.losses, title="Enhancer training")])
    text = _report(file, len(report.losses), progress.start, left_out(pairs, ENHANCER_TRAINING))
    return TrainedEnhancer(file, picture, text)


@contextmanager
def _told(encoder: ComfyTextEncoder, checkpoint: Path | None) -> Iterator[None]:
    """Within the context, what ends a training early is said in the user's terms."""
    try:
        yield
    except comfy.model_management.InterruptProcessingException:
        kept = "lost: the checkpoint has no name" if checkpoint is None else f"kept in {checkpoint}"
        logger.info("The training was interrupted. What it learnt is %s.", kept)
        raise
    except comfy.model_management.OOM_EXCEPTION:
        logger.info(
            "A step does not fit into memory. What helps most, first: gradient_checkpointing, with it "
            "precision bfloat16, the loss latent instead of pixel, a smaller size."
        )
        raise
    except RuntimeError as error:
        raise TextEncoderError(
            f"Gradients do not get through '{encoder.key}' ({encoder.info.family}) or this image model in "
            f"ComfyUI ({error}). Train outside of it: python -m culture_core train-enhancer."
        ) from error


class _ImageModel:
    """A MODEL with its VAE, as `ImagePairs` and the loss need them."""

    def __init__(self, model: ModelPatcher, vae: comfy.sd.VAE, loss: str) -> None:
        if loss not in LOSSES:
            raise ValueError(f"unknown loss {loss!r}: use one of {', '.join(LOSSES)}")
        if vae.latent_dim != 2:
            raise ValueError("This VAE is not one of pictures: enhancers are trained with image models.")
        self.patcher, self.vae, self.loss = model, vae, loss
        self.model, self.sampling = model.model, model.get_model_object("model_sampling")
        self.device = comfy.model_management.get_torch_device()
        self.multiple = 2 * vae.spacial_compression_encode()
        self._prediction_weight(torch.ones(1))  # raises now, not after the pictures have been encoded

    def fingerprint(self) -> list[float]:
        """Tells the model from another."""
        weights = zip(range(4), self.model.diffusion_model.parameters(), strict=False)
        return fingerprint_values([weight for _, weight in weights])

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Latents [B, C, h, w] of pictures [B, 3, H, W] from −1 to 1, as the model sees them."""
        return self.model.process_latent_in(self.vae.encode((pixels.movedim(1, -1) + 1) / 2)).float()

    def distance(self, clean: Tensor, pixels: Tensor, condition: dict[str, Any]) -> Tensor:
        """The loss of one picture, clean latent [1, C, h, w], at a random noise level."""
        levels = self.sampling.sigmas
        # Drawn on the CPU, so that every device gets the same noise.
        noise = torch.randn(clean.shape).to(clean)
        sigma = levels[int(torch.randint(len(levels), (1,)))].reshape(1).to(clean)
        noisy = self.sampling.noise_scaling(sigma, noise, clean)
        given = self._given(condition, noise)
        options = self.patcher.model_options.get("transformer_options", {}).copy()
        estimate = self.model.apply_model(noisy, sigma, transformer_options=options, **given)
        if self.loss == "latent":
            return (estimate - clean).square().mean()
        if self.loss == "denoise":
            return ((estimate - clean).square() * self._prediction_weight(sigma)).mean()
        plain = self.model.process_latent_out(estimate).to(self.vae.vae_dtype)
        return (self.vae.first_stage_model.decode(plain).float() - pixels).square().mean()

    def _given(self, condition: dict[str, Any], noise: Tensor) -> dict[str, Any]:
        """What ComfyUI's sampler would hand to the model."""
        scale = self.multiple // 2
        height, width = (scale * edge for edge in noise.shape[-2:])
        parts = self.model.extra_conds(
            **condition, device=noise.device, noise=noise, width=width, height=height,
            prompt_type="positive", latent_image=noise, denoise_mask=None,
        )  # fmt: skip
        return {name: part.process_cond(batch_size=1, area=None).cond for name, part in parts.items()}

    def _prediction_weight(self, sigma: Tensor) -> Tensor | float:
        """(u − target)² over (x̂_0 − x_0)² of the model's prediction u, whose objective `denoise` is."""
        if self.loss != "denoise":
            return 1.0
        kinds, sampling = comfy.model_sampling, self.sampling
        if isinstance(sampling, kinds.CONST):  # u = ε − x_0, x̂_0 = x − σ u
            return sigma**-2
        if isinstance(sampling, kinds.V_PREDICTION) and not isinstance(sampling, kinds.EDM):
            return (sigma**2 + sampling.sigma_data**2) / (sigma * sampling.sigma_data) ** 2
        if isinstance(sampling, kinds.EPS) and not isinstance(sampling, kinds.X0 | kinds.V_PREDICTION):
            return sigma**-2  # u = ε, x̂_0 = x − σ u
        raise ValueError("What this model predicts is not known: use the loss latent or pixel.")


class _Loss:
    """Loss of a batch of one, whose payload is the index of its pair."""

    def __init__(self, image: _ImageModel, pairs: ImagePairs) -> None:
        self._image, self._pairs = image, pairs

    def __call__(self, condition: dict[str, Any], batch: Batch) -> Tensor:
        device = self._image.device
        clean, pixels = (part(batch[2]).to(device) for part in (self._pairs.latents, self._pairs.pixels))
        return self._image.distance(clean, pixels, condition)


def _with_enhancer(clip: comfy.sd.CLIP, enhancer: LayerEnhancer, layer: int, key: str) -> comfy.sd.CLIP:
    """A clone of the CLIP with the enhancer in its place, as Apply Layer Enhancer does it, for gradients."""

    def enhance(hidden: Tensor, token_mask: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return enhancer(hidden, token_mask=token_mask)

    def make(_device: torch.device) -> FeatureFunction:
        return enhance

    return patch_clip(clip, layer, HIDDEN_STATE, make, _ALL, key)


def _through(patched: comfy.sd.CLIP) -> Apply:
    """`Apply` for one prompt: what CLIP Text Encode makes of it with the CLIP that holds the enhancer."""

    def apply(_enhancer: LayerEnhancer, prompts: Sequence[str], _mask: Tensor | None) -> dict[str, Any]:
        encoded = patched.encode_from_tokens(patched.tokenize(prompts[0]), return_dict=True)
        return {"cross_attn": encoded.pop("cond"), **encoded}

    return apply


def _computing(device: torch.device, precision: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Wraps functions so that they compute in a precision."""

    def inside() -> AbstractContextManager[Any]:
        return torch.autocast(device.type, torch.bfloat16) if precision == BFLOAT16 else nullcontext()

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def computing(*arguments: Any) -> Any:
            with inside():
                return function(*arguments)

        return computing

    return wrap


@contextmanager
def _trainable(clip: comfy.sd.CLIP, image: _ImageModel) -> Iterator[None]:
    """Within the context all models are loaded, and autograd can keep their weights."""
    patchers = [clip.patcher, image.patcher, image.vae.patcher]
    # As the core's Train LoRA does: whole, with as much room beside them as there can be.
    comfy.model_management.load_models_gpu(patchers, memory_required=1e20, force_full_load=True)
    asked = []
    for patcher in patchers:
        _leave_inference_mode(patcher.model)
        asked += [parameter for parameter in patcher.model.parameters() if parameter.requires_grad]
    for parameter in asked:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_(True)


def _leave_inference_mode(module: nn.Module) -> None:
    """Put equal tensors in the place of those that were made in inference mode."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None and weight.is_inference():
                part._parameters[name] = nn.Parameter(weight.detach().clone(), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.is_inference():
                part._buffers[name] = buffer.clone()


@contextmanager
def _without_writing_over(encoder: nn.Module) -> Iterator[None]:
    """Within the context nothing is overwritten that the backward pass needs: a norm gets its input as a
    copy, so that adding to it in place does no harm, and a sum is a tensor of its own."""
    with ExitStack() as stack:
        stack.enter_context(_SumsOfTheirOwn())
        for name, module in encoder.named_modules():
            if name.rpartition(".")[2] in _NORMS:
                stack.callback(module.register_forward_pre_hook(_cloned).remove)
        yield


class _SumsOfTheirOwn(TorchFunctionMode):
    """Newer versions of ComfyUI let Llama-like layers write their sum over their input, which autograd
    refuses."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        _types: object,
        inputs: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:
        options = dict(options or {})
        if function is torch.add:
            options.pop("out", None)
        return function(*inputs, **options)


def _cloned(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (inputs[0].clone(), *inputs[1:])


def _picture_folder(name: str) -> Path:
    """A folder inside ComfyUI's input folder."""
    root = Path(folder_paths.get_input_directory()).resolve()
    folder = (root / name.strip()).resolve()
    if not folder.is_relative_to(root):
        raise PairError(f"The folder {name!r} leads out of ComfyUI's input folder: put the pictures there.")
    if not folder.is_dir():
        raise PairError(f"The folder {folder} is not there: put the pairs' pictures into it.")
    return folder


def _report(file: EnhancerFile, steps: int, start: int, refused: str) -> str:
    figures = file.training
    lines = [
        f"Enhancer of layer {file.layer} of '{file.encoder_key}', {figures['parameters']:,} parameters",
        f"{steps} steps on {figures['pictures']} pictures"
        + (f", of which steps 1 to {start} come from the checkpoint" if start else ""),
        f"Last loss ({figures['loss']}): {figures['last_loss']:.4f}",
        *filter(None, [refused]),
    ]
    return for_preview("\n".join(lines))
