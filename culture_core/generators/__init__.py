"""Systems under test, and the pictures that they make of one prompt list.

A system is a ComfyUI workflow, a diffusers pipeline or a folder of pictures (`systems`); a run is a list of
jobs, system × prompt × seed × strength (`run`); what it leaves is a folder that `read_pictures` reads.
"""

from .base import GeneratorError, Job, Made, Prompt
from .folder import MadePicture, read_pictures

__all__ = ["GeneratorError", "Job", "Made", "MadePicture", "Prompt", "read_pictures"]
