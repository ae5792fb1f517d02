"""The image model of a diffusers pipeline, as training needs it: condition, predict, encode, decode."""

import inspect
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from PIL import Image
from torch import Tensor, nn

from .noise import Level, Schedule

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

FLUX_GUIDANCE = 3.5
"""What the pipeline of guidance-distilled Flux samples with; it is trained for that too."""
PRECISIONS = ("float32", "bfloat16", "float16")
_FLUX_SIZE = 128
"""Of Flux's latent, which its configuration does not say."""
_ALT_ENCODER = "RobertaSeriesModelWithTransformation"
_KINDS = ("UNet2DConditionModel", "SD3Transformer2DModel", "FluxTransformer2DModel")


class Condition(NamedTuple):
    """What the image model gets to see of prompts."""

    hidden: Tensor
    """[B, S, d]"""
    pooled: Tensor | None
    """[B, e]; None where the model takes none."""

    @property
    def vector(self) -> Tensor:
        """`pooled` for a model that takes it."""
        if self.pooled is None:
            raise ValueError("this pipeline gives no pooled conditioning")
        return self.pooled


def load_pipeline(folder: Path, precision: str = "float32") -> "DiffusionPipeline":
    """A pipeline from a folder on disk: no download, no code of the folder's, no pickles.

    Args:
        precision: of all models but the VAE, which keeps float32: some overflow in float16.

    Raises:
        ValueError: for a folder that holds no pipeline, or one that cannot be read.
    """
    try:
        from diffusers import DiffusionPipeline
        from diffusers.utils import logging
    except ImportError as error:
        raise ValueError("this needs the package diffusers: pip install diffusers") from error
    if not (folder / "model_index.json").is_file():
        raise ValueError(f"{folder} is no diffusers pipeline: it has no model_index.json")
    types = {"default": getattr(torch, precision), "vae": torch.float32}
    logging.set_verbosity_error()
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        # Training needs no safety checker, and some folders come without it.
        without = {"safety_checker": None} if "safety_checker" in index else {}
        alt = _ALT_ENCODER in index.get("text_encoder", ())
        pipe = DiffusionPipeline.from_pretrained(
            folder, torch_dtype=types, local_files_only=True, use_safetensors=True, **without,
            **({"text_encoder": None} if alt else {}),
        )  # fmt: skip
        if alt:
            pipe.register_modules(text_encoder=_alt_encoder(folder / "text_encoder").to(types["default"]))
        return pipe
    except Exception as error:  # diffusers and transformers raise a dozen kinds for a damaged folder
        raise ValueError(f"{folder} cannot be loaded: {error}") from error


def _alt_encoder(folder: Path) -> nn.Module:
    """AltDiffusion's text encoder, whose class diffusers has put where its own loader does not look."""
    from diffusers.pipelines.deprecated.alt_diffusion import modeling_roberta_series

    kind = getattr(modeling_roberta_series, _ALT_ENCODER)
    return kind.from_pretrained(folder, local_files_only=True, use_safetensors=True)


class ImageModel:
    """UNet or transformer, VAE and noise schedule of a pipeline: Stable Diffusion 1, 2, XL and 3, Flux, and
    AltDiffusion.

    The models run in the precision that they are in; latents, predictions and pictures are float32.

    Raises:
        ValueError: for a pipeline of another kind.
    """

    def __init__(self, pipe: "DiffusionPipeline") -> None:
        self.pipe = pipe
        self.model = cast(Any, getattr(pipe, "unet", None) or getattr(pipe, "transformer", None))
        self.kind = type(self.model).__name__
        if self.kind not in _KINDS:
            raise ValueError(
                f"{type(pipe).__name__} cannot be trained with: use a pipeline of Stable Diffusion 1, 2, XL "
                "or 3, Flux or AltDiffusion"
            )
        self.vae = pipe.vae
        self.schedule = Schedule.of(pipe.scheduler)
        self.scale = 2 ** (len(self.vae.config.block_out_channels) - 1)
        """Pixels of a picture to one of its latent, a side."""
        channels = self.vae.config.latent_channels * (4 if self.flux else 1)
        if self.model.config.in_channels != channels:
            raise ValueError(
                f"{type(pipe).__name__} takes {self.model.config.in_channels} channels where its VAE makes "
                f"{channels}: inpainting and editing models cannot be trained with"
            )

    @property
    def flux(self) -> bool:
        return self.kind == "FluxTransformer2DModel"

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def size(self) -> int:
        """Edge of the pictures that the model was made for, pixels."""
        latent = getattr(self.model.config, "sample_size", None) or _FLUX_SIZE
        return self.scale * (latent if isinstance(latent, int) else latent[0])

    @property
    def multiple(self) -> int:
        """What the edges of pictures must be multiples of, pixels."""
        patch = 2 if self.flux else getattr(self.model.config, "patch_size", 1)
        return self.scale * patch

    def modules(self) -> list[nn.Module]:
        """All models of the pipeline."""
        return [part for part in self.pipe.components.values() if isinstance(part, nn.Module)]

    @contextmanager
    def prepared(self, checkpointing: bool) -> Iterator[None]:
        """Within the context no parameter asks for a gradient and, on request, activations are computed again
        instead of kept (gradient checkpointing)."""
        asked = [
            parameter for part in self.modules() for parameter in part.parameters() if parameter.requires_grad
        ]
        switched = []
        for parameter in asked:
            parameter.requires_grad_(False)
        try:
            for part in (self.model, self.vae) if checkpointing else ():
                if part._supports_gradient_checkpointing and not part.is_gradient_checkpointing:
                    part.enable_gradient_checkpointing()
                    switched.append(part)
            yield
        finally:
            for part in switched:
                part.disable_gradient_checkpointing()
            for parameter in asked:
                parameter.requires_grad_(True)

    def condition(self, prompts: Sequence[str]) -> Condition:
        """What the pipeline makes of prompts. Gradients follow the caller's grad mode."""
        known = inspect.signature(self.pipe.encode_prompt).parameters
        given = {
            "prompt": list(prompts), "prompt_2": None, "prompt_3": None, "device": self.device,
            "num_images_per_prompt": 1, "do_classifier_free_guidance": False,
        }  # fmt: skip
        parts = self.pipe.encode_prompt(**{name: value for name, value in given.items() if name in known})
        # Negative prompts are None: (hidden, -), (hidden, pooled, ids), (hidden, -, pooled, -).
        return Condition(parts[0], parts[2] if len(parts) == 4 else parts[1])

    def predict(self, noisy: Tensor, level: Level, condition: Condition) -> Tensor:
        """What the model predicts of noisy latents [B, C, h, w], in the same layout."""
        dtype = self.model.dtype
        timestep = level.timestep.to(self.device)
        given, hidden = noisy.to(dtype), condition.hidden.to(dtype)
        pooled = None if condition.pooled is None else condition.pooled.to(dtype)
        if self.flux:
            return self._flux(given, timestep, hidden, condition.vector.to(dtype)).float()
        more: dict[str, Any] = {}
        if self.kind == "SD3Transformer2DModel":
            more = {"pooled_projections": pooled}
        elif getattr(self.model.config, "addition_embed_type", None) == "text_time":
            height, width = (self.scale * edge for edge in noisy.shape[-2:])
            sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=dtype, device=self.device)
            more = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes.repeat(len(noisy), 1)}}
        result = self.model(given, timestep=timestep, encoder_hidden_states=hidden, return_dict=False, **more)
        return result[0].float()

    def _flux(self, noisy: Tensor, timestep: Tensor, hidden: Tensor, pooled: Tensor) -> Tensor:
        count, channels, height, width = noisy.shape
        more = {}
        if self.model.config.guidance_embeds:
            more["guidance"] = torch.full((count,), FLUX_GUIDANCE, dtype=noisy.dtype, device=self.device)
        places = self.pipe._prepare_latent_image_ids(count, height // 2, width // 2, self.device, noisy.dtype)
        packed = self.model(
            self.pipe._pack_latents(noisy, count, channels, height, width),
            timestep=(timestep / 1000).to(noisy.dtype), encoder_hidden_states=hidden,
            pooled_projections=pooled, img_ids=places,
            txt_ids=torch.zeros(hidden.shape[1], 3, dtype=noisy.dtype, device=self.device),
            return_dict=False, **more,
        )[0]  # fmt: skip
        return self._unpacked(packed, height, width)

    def _unpacked(self, packed: Tensor, height: int, width: int) -> Tensor:
        return self.pipe._unpack_latents(packed, height * self.scale, width * self.scale, self.scale)

    def encode(self, pixels: Tensor) -> Tensor:
        """Latents [B, C, h, w] of pictures [B, 3, H, W] from −1 to 1, as the model sees them."""
        with torch.no_grad():
            found = self.vae.encode(pixels.to(self.device, self.vae.dtype))
        latents = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
        mean, spread = self._statistics()
        return (latents.float() - mean) / spread

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] from about −1 to 1. Gradients follow the caller's grad mode."""
        mean, spread = self._statistics()
        plain = (latents * spread + mean).to(self.vae.dtype)
        # bfloat16 has float32's range and spares half of the memory; float16 overflows in some VAEs.
        halved = self.model.dtype == torch.bfloat16
        with torch.autocast(self.device.type, torch.bfloat16, enabled=halved):
            return self.vae.decode(plain, return_dict=False)[0].float()

    def _statistics(self) -> tuple[Tensor | float, Tensor | float]:
        """(mean, spread) of the VAE's own latents, which the model sees centred and scaled."""
        config = self.vae.config
        mean, spread = getattr(config, "shift_factor", None) or 0.0, 1 / config.scaling_factor
        if getattr(config, "latents_mean", None) and getattr(config, "latents_std", None):
            mean, own = (
                torch.tensor(values, device=self.device).view(1, -1, 1, 1)
                for values in (config.latents_mean, config.latents_std)
            )
            spread = own * spread
        return mean, spread

    @torch.no_grad()
    def sample(self, prompt: str, seed: int, steps: int, size: int) -> Image.Image:
        """A picture of a prompt, by the pipeline's own sampler and its usual settings."""
        latents = self.pipe(
            prompt, num_inference_steps=steps, height=size, width=size, output_type="latent",
            generator=torch.Generator().manual_seed(seed),
        ).images  # fmt: skip
        if self.flux:
            latents = self._unpacked(latents, size // self.scale, size // self.scale)
        return to_picture(self.decode(latents.float())[0])


def to_pixels(picture: Image.Image) -> Tensor:
    """[3, H, W] from −1 to 1 of an RGB picture."""
    data = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return data.view(picture.height, picture.width, 3).permute(2, 0, 1).float() / 127.5 - 1


def to_picture(pixels: Tensor) -> Image.Image:
    """The picture of [3, H, W] from −1 to 1."""
    levels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte()
    return Image.fromarray(levels.permute(1, 2, 0).cpu().numpy())
