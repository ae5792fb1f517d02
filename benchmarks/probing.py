"""Probing a dataset against transformers with `output_attentions=True`: time and peak memory.

    python benchmarks/probing.py [--pairs 128] [--models xlm-r-base,clip-l] [--threads 1]

The model is the same for both, with random weights, and so are the prompts: the miniature's pairs in 15
languages, each followed by none to several other captions of its language, since captions differ widely in
length. The peer runs the model with eager attention over the same prompts in batches and keeps all maps, as
one does to read ΔCA off them afterwards. `causal` is the whole probe, for a quarter of the pairs; there the
peer also encodes the neutral prompts once a layer, with the cultural attention output at the noun. It pads to
77 tokens, as image pipelines do, or to the longest prompt of the batch. Each measurement has a process of its
own. Seconds are those of the processor, so that other work on the machine does not count; memory is the peak
of what the process holds beyond model and prompts. A ratio is peer / ours.
"""

import argparse
import ctypes
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))
from benchmarks.processes import figures  # noqa: E402

E5 = ROOT / "models" / "text_encoders" / "multilingual-e5-small"
MODELS = {
    "xlm-r-base": ("XLMRobertaModel", "XLMRobertaConfig"),
    "clip-l": ("CLIPTextModel", "CLIPTextConfig"),
}
SHAPE = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 80,
}  # fmt: skip
BATCH, LENGTH = 32, 77
RUNS = (
    ("attention", "ours"), ("attention", "longest"), ("attention", "77"),
    ("causal", "ours"), ("causal", "longest"),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=128)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--measure", nargs=3, metavar=("MODEL", "TASK", "WHO"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(*measure(*options.measure, options.pairs, options.threads))
        return
    print(f"{'model':12}{'task':11}{'':9}{'seconds':>9}{'ratio':>7}{'peak MB':>9}{'ratio':>7}")
    for model in options.models.split(","):
        ours: dict[str, tuple[float, float]] = {}
        for task, who in RUNS:
            count = options.pairs if task == "attention" else options.pairs // 4
            seconds, megabytes = measured(model, task, who, count, options.threads)
            ours.setdefault(task, (seconds, megabytes))
            ratios = seconds / ours[task][0], megabytes / ours[task][1]
            print(
                f"{model:12}{task:11}{who:9}{seconds:9.1f}{ratios[0]:7.1f}{megabytes:9.0f}{ratios[1]:7.1f}",
                flush=True,
            )


def measured(model: str, task: str, who: str, count: int, threads: int) -> tuple[float, float]:
    """Seconds and megabytes of one run, in a process of its own."""
    options = ("--pairs", count, "--threads", threads)
    return figures(__file__, "--measure", model, task, who, *options)


def measure(name: str, task: str, who: str, count: int, threads: int) -> tuple[float, float]:
    """Seconds and megabytes of one run."""
    import torch
    import transformers

    from culture_core.embedded_encoder import ensure_encoder
    from culture_core.encoders import HFTextEncoder
    from culture_core.miniature.captions import prompt_pairs
    from culture_core.probing import probe_layers

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(ensure_encoder(E5))
    model_class, config_class = (getattr(transformers, part) for part in MODELS[name])
    config = config_class(vocab_size=len(tokenizer), **SHAPE)
    if who != "ours":
        config._attn_implementation = "eager"
    model = model_class(config).eval()
    encoder = HFTextEncoder(model, tokenizer, max_length=LENGTH)
    pairs = captions(prompt_pairs("train"), count)

    def ours() -> None:
        probe_layers(encoder, pairs, batch_size=BATCH, bootstrap=200, patching=task == "causal")

    def peer() -> None:
        keep_all_maps(encoder, pairs, LENGTH if who == "77" else None, task == "causal")

    run = ours if who == "ours" else peer
    # What torch and the tokenizer allocate once.
    model(torch.zeros(1, LENGTH, dtype=torch.long))
    encoder.tokenize([pair.cultural for pair in pairs])
    before = peak_memory(reset=True)
    began = time.process_time()
    run()
    return time.process_time() - began, (peak_memory() - before) / 2**20


def captions(pairs: list, count: int) -> list:
    """So many pairs with text of the same language behind them, none to seven captions."""
    random = Random(0)
    longer = []
    for pair in random.sample(pairs, count):
        others = [other.cultural for other in pairs if other.language == pair.language]
        tail = "".join(f", {text}" for text in random.sample(others, int(8 * random.random() ** 2)))
        longer.append(replace(pair, cultural=pair.cultural + tail, neutral=pair.neutral + tail))
    return longer


def keep_all_maps(encoder, pairs: list, length: int | None, causal: bool) -> list:
    """The attention maps of all prompts, and, if asked for, the patched encodes."""
    import torch

    from culture_core.encoders import ATTENTION_OUTPUT

    model, layers, maps = encoder.model, encoder.info.layers, []

    def run(texts: list[str], output_attentions: bool = True):
        padding = {"padding": "max_length", "max_length": length} if length else {"padding": True}
        tokens = encoder.tokenizer(texts, return_tensors="pt", **padding)
        return model(**tokens, output_attentions=output_attentions)

    def spots(texts: list[str], spans: list) -> list[list[int]]:
        tokens = encoder.tokenize(texts)
        return [tokens.positions(row, span) for row, span in enumerate(spans)]

    with torch.no_grad():
        for start in range(0, len(pairs), BATCH):
            batch = pairs[start : start + BATCH]
            cultural, neutral = [pair.cultural for pair in batch], [pair.neutral for pair in batch]
            there = spots(cultural, [pair.nouns_cultural for pair in batch])
            here = spots(neutral, [pair.nouns_neutral for pair in batch])
            with encoder.capture(range(layers if causal else 0), {ATTENTION_OUTPUT}) as captured:
                maps.append(run(cultural).attentions)
            maps.append(run(neutral).attentions)
            for layer, values in captured.attention_output.items():
                with encoder.patch(layer, ATTENTION_OUTPUT, transplant(values, there, here)):
                    run(neutral, output_attentions=False)
    return maps


def transplant(values, there: list[list[int]], here: list[list[int]]) -> Callable:
    """A patch that puts the mean of each row's values at one prompt's tokens at another's."""

    def put(feature):
        feature = feature.clone()
        for row, (source, target) in enumerate(zip(there, here, strict=True)):
            feature[row, target] = values[row, source].mean(dim=0)
        return feature

    return put


def peak_memory(reset: bool = False) -> int:
    """Most bytes that this process held since the last reset (Linux)."""
    if reset:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed must not hide what is taken anew
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
