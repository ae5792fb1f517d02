"""What the parts of a run speak of."""

from typing import Any, NamedTuple

from PIL import Image


class GeneratorError(ValueError):
    """A system, a prompt list or a run that cannot be used; the message says which and what to do."""


class Prompt(NamedTuple):
    """One content that every system draws."""

    item: str
    """Its id in the prompt list."""
    culture: str
    """Code of the culture that pictures shall show, a key of `culture_core.cultures.CULTURES`."""
    language: str
    """Of both texts."""
    neutral: str
    explicit: str
    """The neutral prompt with a culture modifier."""
    english: str | None = None
    """English gloss of the neutral prompt."""
    english_explicit: str | None = None
    noun: str | None = None
    category: str | None = None


class Job(NamedTuple):
    """One picture to make."""

    id: str
    """Hash of all that the picture depends on: system, prompt, seed, strength."""
    system: str
    item: Prompt
    prompt: str
    """The text for the model."""
    seed: int
    strength: float | None
    """None for a system without a dial."""

    def record(self) -> dict[str, Any]:
        """Its line in a run's metadata."""
        item = self.item
        return {
            "file_name": f"images/{self.id}.png", "job": self.id, "system": self.system,
            "prompt": self.prompt, "neutral": item.neutral, "english": item.english,
            "language": item.language, "culture": item.culture, "noun": item.noun,
            "category": item.category, "item": item.item, "seed": self.seed, "strength": self.strength,
        }  # fmt: skip


class Made(NamedTuple):
    """A picture, and what a PNG file keeps of how it was made."""

    image: Image.Image
    texts: dict[str, str]
    """PNG text entries, such as ComfyUI's `prompt`."""


class JobFailed(Exception):
    """This job could not be done; another attempt may help."""


class JobRefused(JobFailed):
    """Another attempt will not help."""


class WorkerLost(Exception):
    """Whoever does the jobs cannot be reached; the job itself is as good as before."""
