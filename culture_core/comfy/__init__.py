"""Everything that touches ComfyUI: model folders, a text encoder as a CLIP, reading a CLIP and patching it.

The only part of the library that imports ComfyUI. Patches are ModelPatcher injections made of torch forward
hooks: they are in place only while the patched clone is the one that is loaded, so the original CLIP and
other workflows never see them.
"""

from .applying import (
    amplify_clip,
    enhance_clip,
    matching_encoder,
    progress_report,
    scheduled_conditioning,
)
from .enhancer_training import PRECISIONS, train_enhancer_on_model
from .errors import TextEncoderError
from .folders import (
    file_state,
    model_files,
    model_path,
    register_model_folders,
    text_encoder_folder,
    text_encoder_folders,
    text_encoder_names,
    text_encoder_path,
)
from .loading import load_text_encoder
from .patching import patch_clip
from .pictures import image_grid
from .places import choose_encoders, encoders_of, taken_layer
from .probing import probe_clip
from .prompts import PromptTracer
from .queued import check_known, source_of, watch_queue
from .reading import INJECTION_KEY, ComfyTextEncoder
from .saving import checkpoint_path, save_to_output
from .scoring import judge_choices, judge_state, score_images
from .texts import for_preview
from .towers import state_of as text_encoder_state
from .training import CONTRASTS, detect_neurons_in_clip, train_sae_on_clip

__all__ = [
    "CONTRASTS",
    "INJECTION_KEY",
    "PRECISIONS",
    "ComfyTextEncoder",
    "PromptTracer",
    "TextEncoderError",
    "amplify_clip",
    "check_known",
    "checkpoint_path",
    "choose_encoders",
    "detect_neurons_in_clip",
    "encoders_of",
    "enhance_clip",
    "file_state",
    "for_preview",
    "image_grid",
    "judge_choices",
    "judge_state",
    "load_text_encoder",
    "matching_encoder",
    "model_files",
    "model_path",
    "patch_clip",
    "probe_clip",
    "progress_report",
    "register_model_folders",
    "save_to_output",
    "scheduled_conditioning",
    "score_images",
    "source_of",
    "taken_layer",
    "text_encoder_folder",
    "text_encoder_folders",
    "text_encoder_names",
    "text_encoder_path",
    "text_encoder_state",
    "train_enhancer_on_model",
    "train_sae_on_clip",
    "watch_queue",
]
