"""All metrics of a finished run: long, so it goes on where it stopped."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..atomic import atomic_path
from .base import Distance, Embedder, MetricError, Scorer
from .cache import Cache, cache_key
from .clip_score import DEFAULT_MODEL, ClipScore, hessel
from .distances import Lpips
from .diversity import Diversity, group_diversity, mean_diversity
from .image_reward import ImageReward
from .miniature import MiniatureFeatures
from .pictures import RunPicture, read_pictures
from .sets import Inception, frechet, kernel

METRICS = {
    "clip": "cosine of the picture and the neutral prompt in its own language",
    "clip_english": "cosine of the picture and the prompt's English gloss",
    "image_reward": "ImageReward against the English gloss",
    "lpips": "mean LPIPS distance to the reference's pictures of the same item",
    "fid": "FID of a system's pictures and the reference's",
    "kid": "KID of a system's pictures and the reference's",
    "diversity": "how much the pictures of an item differ over seeds: LPIPS spread and Vendi score",
    "diversity_miniature": "the same by the miniature's CNN, which needs no other model",
}
"""What there is to measure."""
OF_PICTURES = ("clip", "clip_english", "image_reward", "lpips")
NEED_REFERENCE = ("lpips", "fid", "kid")
FIGURES, SUMMARY, CACHE = "metrics.jsonl", "metrics.json", "cache.jsonl"
BATCH = 16

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Instruments:
    """Which models measure, and where they are. Each is loaded when it is needed first."""

    model: Path | str = DEFAULT_MODEL
    """Of CLIPScore and the Vendi score: a folder, or a name on the hub."""
    weights: Path | None = None
    """Folder with the weights of LPIPS, FID and KID; ImageReward's are in `image_reward/` inside it."""
    device: str = "cpu"
    download: bool = False
    """Fetch the model of CLIPScore where it is not on this machine."""
    _open: ExitStack = field(default_factory=ExitStack, repr=False, compare=False)

    def __enter__(self) -> "Instruments":
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()
        self.__dict__.pop("image_reward", None)  # a process that has ended

    @cached_property
    def clip(self) -> ClipScore:
        return ClipScore(self.model, self.device, self.download)

    @cached_property
    def image_reward(self) -> ImageReward:
        folder = (self.weights or Path(torch.hub.get_dir()) / "checkpoints") / "image_reward"
        return self._open.enter_context(ImageReward(folder, self.device))

    @cached_property
    def lpips(self) -> Lpips:
        return Lpips(weights=self.weights, device=self.device)

    @cached_property
    def inception(self) -> Inception:
        return Inception(self.weights, self.device)

    @cached_property
    def miniature(self) -> MiniatureFeatures:
        return MiniatureFeatures()


def measure_run(
    run: Path,
    metrics: Sequence[str],
    output: Path,
    reference: Path | None = None,
    progress: Progress = lambda done, total: None,
    *,
    instruments: Instruments | None = None,
    quality: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Measure a run; what has been computed is on disk in `output` at once, and not computed again.

    Called again with other metrics, it adds them. `output` gets `metrics.jsonl`, a line a picture, and
    `metrics.json`, which is returned: figures by system, settings and warnings.

    Args:
        metrics: keys of `METRICS`.
        reference: folder of real pictures with a `metadata.jsonl`, for LPIPS, FID and KID.
        progress: called with (done, total) over the steps of all metrics; what it raises ends the work.
        instruments: the models; without, the defaults.
        quality: of pictures by file name, 0 to 1, for the quality-weighted Vendi score.

    Raises:
        ValueError: for an unknown metric, a run or reference that does not fit, a model that is missing, or
            an `output` with figures by other models; `MetricError` but for the model of CLIPScore.
    """
    metrics = list(dict.fromkeys(metrics))
    if unknown := [name for name in metrics if name not in METRICS]:
        raise MetricError(f"there is no metric {', '.join(unknown)}: there are {', '.join(METRICS)}")
    if reference is None and (lacking := [name for name in metrics if name in NEED_REFERENCE]):
        raise MetricError(f"{', '.join(lacking)} needs real pictures: give a folder of them as reference")
    pictures = read_pictures(run)
    real = read_pictures(reference) if reference is not None else []
    _check(metrics, pictures, real)
    with instruments or Instruments() as ready:
        work = _Work(output, pictures, real, ready, quality or {}, _Counter(progress, len(metrics)))
        for name in metrics:
            work.settings[name] = work.settings_of(name)
        before = _read_summary(output)
        _check_settings(output, before, work.settings)
        for name in metrics:
            work.take(name)
    return work.write(before)


def read_metrics(output: Path) -> dict[str, dict[str, float]]:
    """The figures of every picture by file name.

    Raises:
        MetricError: for a folder without figures.
    """
    try:
        records = [json.loads(line) for line in (output / FIGURES).read_text(encoding="utf-8").splitlines()]
        return {record["file_name"]: _figures(record) for record in records}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MetricError(f"{output} has no figures to read ({error}): measure a run first") from error


class _Work:
    """One call of `measure_run`."""

    def __init__(
        self,
        output: Path,
        pictures: list[RunPicture],
        real: list[RunPicture],
        instruments: Instruments,
        quality: Mapping[str, float],
        counter: "_Counter",
    ) -> None:
        self._output, self._pictures, self._real = output, pictures, real
        self._instruments, self._quality, self._counter = instruments, quality, counter
        self._cache = Cache(output / CACHE)
        self._hashes = {picture.path: _file_hash(picture.path) for picture in [*pictures, *real]}
        self._columns: dict[str, list[float]] = {}
        self._systems: dict[str, dict[str, Any]] = {picture.system: {} for picture in pictures}
        self._too_long: dict[str, int] = {}
        self.settings: dict[str, dict[str, Any]] = {}

    def settings_of(self, name: str) -> dict[str, Any]:
        """Loads the instruments of a metric, so that one that is missing is said before the work."""
        own = [tool.settings() for tool in self._tools(name)]
        if name not in NEED_REFERENCE:
            return {"instruments": own}
        reference = sorted([self._hashes[picture.path], picture.item] for picture in self._real)
        return {"instruments": own, "reference": _digest(reference)}

    def take(self, name: str) -> None:
        self._counter.next_metric(2 if name.startswith("diversity") else 1)
        if name in ("clip", "clip_english", "image_reward"):
            self._scores(name)
        elif name == "lpips":
            self._to_reference()
        elif name in ("fid", "kid"):
            self._sets(name)
        else:
            self._diversity(name)

    def write(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """Both files, with what earlier calls found where the run has not changed since."""
        run = _digest([[*p._replace(path=Path()), self._hashes[p.path]] for p in self._pictures])
        if before.get("run") != run:
            before = {}
        kept = read_metrics(self._output) if before else {}
        lines = [
            {
                "file_name": picture.file_name,
                **kept.get(picture.file_name, {}),
                **{name: column[row] for name, column in self._columns.items()},
            }
            for row, picture in enumerate(self._pictures)
        ]
        systems = {
            name: {**before.get("systems", {}).get(name, {}), **figures}
            for name, figures in self._systems.items()
        }
        summary = {
            "run": run, "pictures": len(self._pictures), "systems": systems,
            "settings": {**before.get("settings", {}), **self.settings},
            "too_long": {**before.get("too_long", {}), **self._too_long},
        }  # fmt: skip
        _write(self._output / FIGURES, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        _write(self._output / SUMMARY, json.dumps(summary, ensure_ascii=False, indent=1))
        return summary

    def _tools(self, name: str) -> list[Any]:
        ready = self._instruments
        tools: dict[str, Callable[[], list[Any]]] = {
            "clip": lambda: [ready.clip], "clip_english": lambda: [ready.clip],
            "image_reward": lambda: [ready.image_reward], "lpips": lambda: [ready.lpips],
            "fid": lambda: [ready.inception], "kid": lambda: [ready.inception],
            "diversity": lambda: [ready.clip, ready.lpips],
            "diversity_miniature": lambda: [ready.miniature, ready.miniature],
        }  # fmt: skip
        return tools[name]()

    def _scores(self, name: str) -> None:
        scorer: Scorer = self._tools(name)[0]
        # Pictures without an English gloss have been refused by now.
        texts = [picture.text if name == "clip" else picture.english or "" for picture in self._pictures]
        settings = scorer.settings()
        keys = [
            cache_key(settings, self._hashes[picture.path], text)
            for picture, text in zip(self._pictures, texts, strict=True)
        ]

        def compute(places: list[int]) -> list[float]:
            images = _opened(self._pictures[place].path for place in places)
            return scorer.score(images, [texts[place] for place in places])

        found = self._cache.computed(keys, compute, BATCH, self._counter.within(len(keys)))
        self._columns[name] = found
        distinct = list(dict.fromkeys(texts))
        long = dict(zip(distinct, scorer.too_long(distinct), strict=True))
        self._too_long[name] = sum(long[text] for text in texts)
        for system, values in self._by_system(found).items():
            self._systems[system][name] = {"mean": _mean(values), "pictures": len(values)}
            if name != "image_reward":
                self._systems[system][name]["hessel"] = _mean([hessel(value) for value in values])

    def _to_reference(self) -> None:
        pairs = [
            (picture.path, real.path)
            for picture in self._pictures
            for real in self._real
            if real.item == picture.item
        ]
        distances: dict[Path, list[float]] = {}
        for (path, _), value in zip(pairs, self._distances(self._instruments.lpips, pairs), strict=True):
            distances.setdefault(path, []).append(value)
        found = [_mean(distances[picture.path]) for picture in self._pictures]
        self._columns["lpips"] = found
        for system, values in self._by_system(found).items():
            self._systems[system]["lpips"] = {"mean": _mean(values), "pictures": len(values)}

    def _sets(self, name: str) -> None:
        both = [*self._pictures, *self._real]
        features = torch.stack(self._features(self._instruments.inception, [one.path for one in both]))
        real = features[len(self._pictures) :]
        for system in self._systems:
            rows = [row for row, picture in enumerate(self._pictures) if picture.system == system]
            figures = (frechet if name == "fid" else kernel)(real, features[rows])
            self._systems[system][name] = figures.to_json()

    def _diversity(self, name: str) -> None:
        embedder, distance = self._tools(name)
        groups: dict[tuple[str, str], list[RunPicture]] = {}
        for picture in self._pictures:
            groups.setdefault((picture.system, picture.item), []).append(picture)
        groups = {key: group for key, group in groups.items() if len(group) > 1}
        pairs = [(a.path, b.path) for group in groups.values() for a, b in combinations(group, 2)]
        paths = [picture.path for group in groups.values() for picture in group]
        embeddings = dict(zip(paths, self._features(embedder, paths), strict=True))
        distances = dict(zip(pairs, self._distances(distance, pairs), strict=True))
        found: dict[str, list[Diversity]] = {}
        for (system, _), group in groups.items():
            quality = [self._quality[p.file_name] for p in group if p.file_name in self._quality]
            found.setdefault(system, []).append(
                group_diversity(
                    torch.stack([embeddings[picture.path] for picture in group]),
                    [distances[a.path, b.path] for a, b in combinations(group, 2)],
                    quality if len(quality) == len(group) else None,
                )
            )
        for system, own in found.items():
            self._systems[system][name] = mean_diversity(own)

    def _features(self, embedder: Embedder, paths: Sequence[Path]) -> list[torch.Tensor]:
        settings = {**embedder.settings(), "of": "features"}
        keys = [cache_key(settings, self._hashes[path]) for path in paths]

        def compute(places: list[int]) -> torch.Tensor:
            return embedder.embed(_opened(paths[place] for place in places))

        return self._cache.computed(keys, compute, BATCH, self._counter.within(len(keys)))

    def _distances(self, distance: Distance, pairs: Sequence[tuple[Path, Path]]) -> list[float]:
        settings = {**distance.settings(), "of": "pair"}
        keys = [cache_key(settings, *sorted((self._hashes[a], self._hashes[b]))) for a, b in pairs]

        def compute(places: list[int]) -> list[float]:
            return distance.distance(*(_opened(pairs[place][side] for place in places) for side in (0, 1)))

        return self._cache.computed(keys, compute, BATCH, self._counter.within(len(keys)))

    def _by_system(self, values: Sequence[float]) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for picture, value in zip(self._pictures, values, strict=True):
            found.setdefault(picture.system, []).append(value)
        return found


class _Counter:
    """One count over metrics whose steps are not alike: each metric is a hundred."""

    _EACH = 100

    def __init__(self, progress: Progress, metrics: int) -> None:
        self._progress, self._total = progress, self._EACH * metrics
        self._start, self._share = 0.0, 0.0

    def next_metric(self, phases: int) -> None:
        self._share = self._EACH / phases

    def within(self, total: int) -> Callable[[int], None]:
        """For the next phase of the metric, which has this many steps."""
        start, self._start = self._start, self._start + self._share
        return lambda done: self._progress(int(start + self._share * done / max(total, 1)), self._total)


def _check(metrics: Sequence[str], pictures: Sequence[RunPicture], real: Sequence[RunPicture]) -> None:
    """What must be known of the pictures."""
    needs = {"clip": [p for p in pictures if not p.text]}
    needs |= {name: [p for p in pictures if not p.english] for name in ("clip_english", "image_reward")}
    for name, lacking in needs.items():
        if name in metrics and lacking:
            what = "text" if name == "clip" else "English gloss (`english`), and reads nothing else"
            raise MetricError(f"{name} needs each picture's {what}; {lacking[0].file_name} has none")
    if "lpips" in metrics:
        items = {picture.item for picture in real}
        lacking = [picture for picture in pictures if picture.item not in items]
        if lacking:
            raise MetricError(
                f"the reference has no picture of {len(lacking)} of the run's, of {lacking[0].item!r} first: "
                "its metadata must name the same items"
            )
    if {"diversity", "diversity_miniature"} & set(metrics):
        counts: dict[tuple[str, str], int] = {}
        for picture in pictures:
            counts[picture.system, picture.item] = counts.get((picture.system, picture.item), 0) + 1
        if max(counts.values()) < 2:
            raise MetricError("diversity is taken over seeds: the run has one picture an item; draw several")


def _check_settings(output: Path, before: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    for name, own in settings.items():
        if before.get("settings", {}).get(name, own) != own:
            raise MetricError(
                f"{output} has figures of {name} by other models, or to another reference: choose another "
                "folder"
            )


def _read_summary(output: Path) -> dict[str, Any]:
    try:
        found = json.loads((output / SUMMARY).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def _figures(record: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in record.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _opened(paths: Iterator[Path]) -> list[Image.Image]:
    images = []
    for path in paths:
        try:
            with Image.open(path) as image:
                image.load()
                images.append(image)
        except (OSError, Image.DecompressionBombError) as error:
            raise MetricError(f"{path} cannot be read as a picture: {error}") from error
    return images


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _digest(value: Any) -> str:
    return cache_key({}, json.dumps(value, ensure_ascii=False, default=str))


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
