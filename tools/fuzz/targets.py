"""What is fuzzed: every reader of something that may come from a stranger."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".comfyui" / "ComfyUI").resolve()
HAS_COMFYUI = (COMFYUI / "main.py").is_file()


class Reader(NamedTuple):
    """A reader, ready to be called with a case's folder."""

    read: Callable[[Path], object]
    errors: tuple[type[Exception], ...]
    """What it is declared to raise; a subclass that is not named here is a crash."""
    named: tuple[str, ...] = ()
    """What a refusal may name in place of a file."""


@dataclass(frozen=True)
class Target:
    """A kind of case."""

    name: str
    make: Callable[[], Reader]
    """Imports what it needs."""
    share: int
    """Of the cases, in relation to the others."""
    needs_comfyui: bool = False


def put_comfyui_on_path() -> None:
    """ComfyUI's folder first and the pack's last: both have a `nodes`."""
    if sys.path[0] == str(COMFYUI):
        return
    here = {"", str(ROOT), os.getcwd()}
    sys.path[:] = [str(COMFYUI), *(path for path in sys.path if path not in here), str(ROOT)]
    import comfy.cli_args
    import torch

    comfy.cli_args.args.cpu = not torch.cuda.is_available()


def _culture_sae() -> Reader:
    from culture_core.files import FileError, load_culture_sae

    return Reader(lambda folder: load_culture_sae(folder / "sae.safetensors"), (FileError,))


def _enhancer() -> Reader:
    from culture_core.files import FileError, load_enhancer

    return Reader(lambda folder: load_enhancer(folder / "enhancer.safetensors"), (FileError,))


def _foreign_sae() -> Reader:
    from culture_core.file_checks import FileError
    from culture_core.sae.formats import import_sae

    return Reader(import_sae, (FileError,))


def _convert() -> Reader:
    from culture_core.file_checks import FileError
    from culture_core.pickles import convert_pickle

    def read(folder: Path) -> object:
        source = folder / "model.bin"
        return convert_pickle(source if source.is_file() else folder, folder / "made.safetensors")

    return Reader(read, (FileError,))


def _features() -> Reader:
    import torch

    from culture_core.sae.sources import FeatureStore

    def read(folder: Path) -> object:
        store = FeatureStore(folder)
        store.groups()
        store.verify()
        return store.take(torch.arange(min(len(store), 4)))

    return Reader(read, (ValueError,))


def _pairs() -> Reader:
    from culture_core.enhancer_training.image_pairs import _digest, _path_of, load_image_pairs
    from culture_core.pairs import PairError

    def read(folder: Path) -> object:
        loaded = load_image_pairs(folder / "pairs.jsonl")
        return [_digest(_path_of(pair, folder), pair) for pair in loaded.training if pair.image is not None]

    return Reader(read, (PairError,), ("prompt pair ",))


def _bench() -> Reader:
    from culture_core.bench.ingestion import PictureError, read_picture
    from culture_core.bench.records import Bench, BenchError

    def read(folder: Path) -> object:
        bench = Bench.open(folder)
        bench.pairs()
        for record in bench.records.values():
            try:
                read_picture(bench.image_path(record))
            except PictureError as error:  # says what is wrong with it; who asks says which it is
                raise BenchError(f"{record.image} {error}") from error
        return bench

    return Reader(read, (BenchError,))


def _ingestion() -> Reader:
    from culture_core.bench.ingestion import ingest
    from culture_core.bench.records import Bench, BenchError

    return Reader(lambda folder: ingest(folder / "in", Bench(folder / "bench")), (BenchError,))


def _answers() -> Reader:
    from culture_core.judges.results import compare, summarise
    from culture_core.judges.run import _open_output, read_run

    def read(folder: Path) -> object:
        judged = read_run(folder)
        summarise(judged).table()
        _open_output(folder, {"judge": "miniature", "graded": []})
        return compare(judged, judged)

    return Reader(read, (ValueError,))


def _pictures() -> Reader:
    """A run's folder, read by everything that reads one."""
    from culture_core.generators.base import GeneratorError
    from culture_core.generators.folder import RunFolder, read_pictures
    from culture_core.judges.folders import read_folder
    from culture_core.metrics.base import MetricError
    from culture_core.metrics.pictures import read_pictures as measured_pictures
    from culture_core.studies.measured import StudyError as OfStudies
    from culture_core.studies.measured import read_measured
    from culture_core.user_study.pictures import StudyError
    from culture_core.user_study.pictures import read_run as study_pictures

    def each(folder: Path) -> object:
        first: Exception | None = None
        calls: list[Callable[[], object]] = [
            lambda: read_pictures(folder), lambda: measured_pictures(folder), lambda: study_pictures(folder),
            lambda: read_folder(folder), lambda: RunFolder(folder).read_settings(),
            lambda: read_measured(folder, [folder / "judged"], [folder / "figures"]),
            lambda: RunFolder(folder).recover([]),
        ]  # fmt: skip
        for call in calls:
            try:
                call()
            except errors as error:
                first = first or error
                _check_exact(error, errors)
        if first is not None:
            raise first
        return None

    errors = (GeneratorError, MetricError, StudyError, OfStudies, ValueError)
    return Reader(each, errors)


def _check_exact(error: Exception, errors: tuple[type[Exception], ...]) -> None:
    if type(error) not in errors:
        raise error


def _foreign_pictures() -> Reader:
    from culture_core.generators.foreign import FolderWorker
    from culture_core.generators.systems import FOLDER, System

    def read(folder: Path) -> object:
        problems = FolderWorker([0, 1]).check(System("x", FOLDER, "folder", str(folder)))
        if problems:
            raise ValueError(problems[0])
        return None

    return Reader(read, (ValueError,))


def _systems() -> Reader:
    from culture_core.generators.base import GeneratorError
    from culture_core.generators.systems import read_systems

    def read(folder: Path) -> object:
        return [system.settings() for system in read_systems(folder / "systems.yaml")]

    return Reader(read, (GeneratorError,))


def _vlm_config() -> Reader:
    from culture_core.judges.configured import judge_names
    from culture_core.vlm import VLMError
    from culture_core.vlm.config import CONFIG_VARIABLE, configured, make_vlm

    def read(folder: Path) -> object:
        os.environ[CONFIG_VARIABLE] = str(folder / "models.json")
        try:
            judge_names()
            return [
                make_vlm(name, entry) for name, entry in configured().items() if entry["kind"] == "server"
            ]
        finally:
            os.environ[CONFIG_VARIABLE] = ""

    return Reader(read, (VLMError,), ("the model ", "the VLM "))


def _user_study() -> Reader:
    from culture_core.user_study.answers import collect_answers, read_answers
    from culture_core.user_study.design import read_key
    from culture_core.user_study.pictures import StudyError

    def read(folder: Path) -> object:
        study = read_key(folder / "key.json")
        paths = [folder / "ada.json", folder / "bob.csv"]
        collect_answers(paths, study)
        return [read_answers(path, study) for path in paths]

    return Reader(read, (StudyError,))


def _adapter() -> Reader:
    put_comfyui_on_path()
    import torch

    from culture_core.comfy.errors import TextEncoderError
    from culture_core.comfy.loading import _operations, _precision
    from culture_core.comfy.towers import adapter_weights, build_adapter, read_weights

    def read(folder: Path) -> object:
        path = folder / "adapter.safetensors"
        weights = adapter_weights(read_weights(path), path)
        try:
            return build_adapter(weights, _precision(weights), torch.device("cpu"), _operations(weights))
        except RuntimeError as error:  # as `loading._put_adapter` does
            raise TextEncoderError(f"{path} is no whole PEA adapter ({error})") from error

    return Reader(read, (TextEncoderError,))


def _text_encoder() -> Reader:
    put_comfyui_on_path()
    from culture_core.comfy import load_text_encoder
    from culture_core.comfy.errors import TextEncoderError

    def read(folder: Path) -> object:
        adapter = folder / "adapter.safetensors"
        clip = load_text_encoder(folder, adapter if adapter.is_file() else None)
        return clip.tokenize("a house \ud83d\ude00 ok".encode("utf-16", "surrogatepass").decode("utf-16"))

    return Reader(read, (TextEncoderError,))


def _graphs() -> Reader:
    put_comfyui_on_path()
    from .graphs import GraphRunner

    return GraphRunner.reader()


TARGETS = {
    target.name: target
    for target in (
        Target("culture_sae", _culture_sae, 18),
        Target("enhancer", _enhancer, 10),
        Target("foreign_sae", _foreign_sae, 10),
        Target("convert", _convert, 4),
        Target("features", _features, 4),
        Target("pairs", _pairs, 12),
        Target("bench", _bench, 6),
        Target("ingestion", _ingestion, 2),
        Target("answers", _answers, 6),
        Target("pictures", _pictures, 6),
        Target("foreign_pictures", _foreign_pictures, 4),
        Target("systems", _systems, 8),
        Target("vlm_config", _vlm_config, 3),
        Target("user_study", _user_study, 6),
        Target("adapter", _adapter, 5, needs_comfyui=True),
        Target("text_encoder", _text_encoder, 6, needs_comfyui=True),
        Target("graphs", _graphs, 6, needs_comfyui=True),
    )
}
"""By name."""


@cache
def reader(name: str) -> Reader:
    """A target's reader, made once."""
    return TARGETS[name].make()


def clear(folder: Path) -> None:
    """Empty a folder."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
