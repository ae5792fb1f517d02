"""The report of the study: every table and figure of the paper that a miniature can have, theirs beside ours."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..cultures import CULTURES
from ..documents import Cell, Document
from ..neuron_pictures import pictures_of
from ..plots import curve_picture
from ..probe_pictures import causal_curves, language_curves
from ..reports import probe_picture
from .paper import CONTRADICTIONS, PAPER, QUALITY
from .results import Results, outcome
from .statistics import Row, mean, share
from .study import PAPER_STRENGTH, QUICK, Study
from .trials import ENHANCERS, OTHERS, READING

NAMES = {"alt": "Alt (as AltDiffusion)", "pea": "PEA (as PEA-Diffusion)"}
SHORT = {"alt": "Alt", "pea": "PEA"}
HEADER = (
    "treatment", "CultureVQA %", "paper", "noun %", "gap closed", "CLIP-type", "reference distance",
    "noun confidence", "diversity",
)  # fmt: skip
TREATMENTS = {
    "neutral": "neutral prompt",
    "explicit": "explicit modifier",
    "translated": "translated to English",
    "translated, explicit": "translated, with explicit English modifier",
    "amplified": "amplified (inject)",
    "enhanced": "fine-tuned enhancer",
}


def _table(document: Document, results: Results, kind: str, names: Mapping[str, str], caption: str,
           neutral: str = "neutral", explicit: str = "explicit") -> None:  # fmt: skip
    """Rows of one system with everything that is measured, the paper's CultureVQA beside ours."""
    lines = []
    for name, label in names.items():
        rows = results.rows(kind, name)
        gap = None if name in (neutral, explicit) else str(results.recovery(kind, name, neutral, explicit))
        lines.append(
            [
                label, str(results.share(kind, name)), PAPER.get((name, kind)),
                str(results.share(kind, name, "noun")), gap, mean(rows, "clip").value,
                mean(rows, "distance").value, mean(rows, "confidence").value, mean(rows, "diversity").value,
            ]
        )  # fmt: skip
    document.table(HEADER, lines, f"{NAMES[kind]}: {caption}", ".3f")


def make_report(study: Study) -> tuple[Document, list[list[Any]]]:
    """The whole report, and its lines of figures to beat; what is not cached yet is made first."""
    results = Results.of(study)
    document = Document("Where Culture Fades, reproduced in miniature")
    _introduction(document, study)
    document.section("Figures to beat", "outcome")
    document.paragraph(
        "Held-out prompts, all repetitions together; 95 % intervals in parentheses (bootstrap over the "
        "combinations of culture and noun, Wilson for plain shares)."
    )
    reached = outcome(results)
    papers = [f"paper, {NAMES[kind]}" for kind in results.kinds]
    header = ("", "wanted", *(SHORT[kind] for kind in results.kinds), *papers)
    document.table(header, reached, name="outcome")
    for part in (
        _gap,
        _probing,
        _neurons,
        _masking,
        _sweep,
        _methods,
        _controls,
        _outside,
        _english_part,
        _beyond,
        _tried,
        _paper,
    ):
        part(document, study, results)
    return document, [[_plain(cell) for cell in line] for line in reached]


def _introduction(document: Document, study: Study) -> None:
    seconds = study.cache.seconds
    document.paragraph(
        "Two small text-to-image systems on one real multilingual text encoder (multilingual-e5-small): Alt gets "
        "its context by a linear projection, PEA by an adapter distilled from an English teacher. The culture "
        "that a plain prompt leaves asleep is woken by culture neurons of one layer, or by a trained enhancer "
        "on a layer. Each repetition trains SAE and enhancer anew, finds the neurons anew, chooses the "
        "strengths anew on validation prompts, and draws with other noise; the image models are the same, as a "
        "released model is. Autoencoder and judge are the ones that ship with the pack."
    )
    document.paragraph(
        "What carries over to real models is the relation between figures, above all the share of the gap "
        "between neutral and explicit prompts that a method closes. The size of the gap does not: it is built "
        "into the training captions. The amplifier is told the culture, the enhancer is not."
    )
    if study.sizes == QUICK:
        document.paragraph(
            "This is the short run: systems and enhancers are hardly trained, and each figure is of 30 prompts. It "
            "shows that everything works, and what the report looks like. How well the methods do is what the run "
            "without --quick says."
        )
    with document.details(f"How it was made: {sum(seconds.values()) / 60:.0f} minutes in all"):
        _time(document, seconds)
        document.table(
            ("setting", "value"),
            [[name, str(value)] for name, value in asdict(study.sizes).items()],
            "Settings",
        )
        for kind in study.sizes.kinds:
            layer, noise = study.best_enhancer(kind)
            document.paragraph(
                f"{NAMES[kind]}, chosen on validation prompts: {study.design(kind)}; enhancer after layer {layer} "
                f"with noise {noise:g}"
            )


WORK = {
    "image model": "training the image model", "system": "training the two systems", "SAE": "training SAEs",
    "enhancer ": "training enhancers", "CLIP-type": "training the CLIP-type scorer", "probes": "probing",
    "candidates": "choosing on validation prompts", "enhancers": "choosing on validation prompts",
    "strengths": "choosing on validation prompts", "several layers": "choosing on validation prompts",
    "row": "drawing and measuring the tables' rows",
}  # fmt: skip
"""Kind of work, by how the name of a stage begins."""


def _time(document: Document, seconds: Mapping[str, float]) -> None:
    """How long each kind of work took, and folded away each stage of it."""
    kinds: dict[str, list[float]] = {}
    for stage, taken in seconds.items():
        work = next((name for start, name in WORK.items() if stage.startswith(start)), stage)
        kinds.setdefault(work, []).append(taken / 60)
    lines = [[work, len(taken), sum(taken)] for work, taken in kinds.items()]
    document.table(("work", "stages", "minutes"), lines, "Time", ".1f", "time")
    with document.details("Time of every stage"):
        document.table(("stage", "seconds"), seconds.items(), "Time by stage", ".1f", "time-by-stage")


def _gap(document: Document, study: Study, results: Results) -> None:
    document.section("Explicit against neutral (Fig. 4)", "gap")
    for kind in results.kinds:
        lines = []
        for code, culture in CULTURES.items():
            own = [_only(results.rows(kind, name), code) for name in ("explicit", "neutral")]
            lines.append([culture.name, *(str(share(rows, "culture")) for rows in own)])
        document.table(("culture", "explicit %", "neutral %"), lines, f"{NAMES[kind]}: CultureVQA by culture")
        names = {name: TREATMENTS[name] for name in ("explicit", "neutral")}
        document.picture(
            results.sheet(kind, names), f"{NAMES[kind]}: explicit and neutral prompts, a column a culture"
        )


def _probing(document: Document, study: Study, results: Results) -> None:
    document.section("Where a modifier acts (Fig. 6 and 14)", "layers")
    probe, languages = study.probes
    document.paragraph(
        f"Key layer {probe.layer}: {probe.reason}. The paper's are 14 (AltDiffusion) and 16 (PEA-Diffusion) of 24."
    )
    document.picture(
        probe_picture(probe),
        "ΔCA and activation patching by layer, all languages (both systems have this encoder)",
    )
    document.picture(language_curves(languages), "ΔCA by layer, a panel a language")
    document.picture(causal_curves(languages), "Activation patching by layer, a panel a language")


def _neurons(document: Document, study: Study, results: Results) -> None:
    document.section("Culture neurons (Fig. 7, 15 and 16)", "neurons")
    drawn: dict[Any, list[str]] = {}
    for kind in results.kinds:
        drawn.setdefault(study.design(kind), []).append(NAMES[kind])
    for design, names in drawn.items():
        document.paragraph(
            f"{' and '.join(names)}: {design.count} neurons a culture in layer {design.layer}'s {design.feature}."
        )
        pictures = pictures_of(study.culture_sae(design, 0))
        captions = {
            "ranking-th": "Ranking of one culture's latents with the elbow (Fig. 7)",
            "wfs": "WFS curves of all cultures (Fig. 15)",
            "activation": "Activation of each culture's neurons on all cultures' prompts (Fig. 16)",
            "overlap": "Neurons that cultures share",
        }
        for name, caption in captions.items():
            document.picture(pictures[name], caption)


def _masking(document: Document, study: Study, results: Results) -> None:
    document.section("Masking (Tables 1 and 5)", "masking")
    document.paragraph(
        "Explicit prompts with the culture's neurons taken away from all tokens, and with as many random latents "
        "that are active there: matched in frequency (the paper's control), and matched in removed norm."
    )
    names = {
        "explicit": "explicit modifier", "masked": "culture neurons masked",
        "masked, random (frequency)": "random, frequency-matched", "masked, random (norm)": "random, norm-matched",
    }  # fmt: skip
    for kind in results.kinds:
        lines = [
            [label, str(results.share(kind, name)), PAPER.get((name, kind)), str(results.left(kind, name)),
             str(results.share(kind, name, "noun"))]
            for name, label in names.items()
        ]  # fmt: skip
        document.table(("", "CultureVQA %", "paper", "of explicit", "noun %"), lines, NAMES[kind])
        document.picture(results.sheet(kind, names), f"{NAMES[kind]}: masking")


def _sweep(document: Document, study: Study, results: Results) -> None:
    document.section("Strength (Fig. 10 and 11)", "strength")
    document.paragraph(
        "One strength for all cultures. Strengths are chosen on validation prompts; this sweep on held-out ones "
        "shows what the slider does. The paper found its best at 6 or 7 in its own scale mode."
    )
    for kind in results.kinds:
        curves = {
            name: [
                results.share(kind, f"strength {strength:g}", figure).percent
                for strength in study.sizes.sweep
            ]
            for name, figure in (("CultureVQA", "culture"), ("noun accuracy", "noun"))
        }
        document.table(
            ("strength", "CultureVQA %", "noun %"),
            [
                [
                    strength,
                    str(results.share(kind, f"strength {strength:g}")),
                    str(results.share(kind, f"strength {strength:g}", "noun")),
                ]
                for strength in study.sizes.sweep
            ],
            f"{NAMES[kind]}: strength",
        )
        document.picture(
            curve_picture(
                curves,
                f"{NAMES[kind]}: strengths {', '.join(f'{s:g}' for s in study.sizes.sweep)}",
                x_label="step of the sweep",
                y_label="%",
                y_range=(0, 100),
            ),
            f"{NAMES[kind]}: CultureVQA and noun accuracy over the sweep",
        )
        document.picture(
            results.sheet(kind, {f"strength {s:g}": f"strength {s:g}" for s in study.sizes.sweep}),
            f"{NAMES[kind]}: one noise, rising strength",
        )


def _methods(document: Document, study: Study, results: Results) -> None:
    document.section("Both methods against the baselines (Table 2)", "methods")
    document.paragraph(
        "The CLIP-type score compares with the neutral prompt in its own language for every row. The reference "
        "distance (the paper's LPIPS use) is to a rendered picture of the noun in its culture. Noun confidence "
        "stands where the paper has ImageReward."
    )
    for kind in results.kinds:
        _table(document, results, kind, TREATMENTS, "Table 2")
        document.picture(results.sheet(kind, TREATMENTS), f"{NAMES[kind]}: a row a treatment")
    document.table(
        ("system", "CultureVQA %", "CLIPScore", "ImageReward", "LPIPS"), QUALITY, "The paper's Table 2", "g"
    )


def _controls(document: Document, study: Study, results: Results) -> None:
    document.section("Random neurons, random layer (Table 3)", "controls")
    names = {
        "neutral": "neutral prompt", "amplified": "culture neurons amplified",
        "amplified, random (frequency)": "random latents, frequency-matched",
        "amplified, random (norm)": "random latents, norm-matched",
        "enhanced": "enhancer at the layer chosen on validation prompts", "enhanced, random layer": "enhancer at a random layer",
    }  # fmt: skip
    document.paragraph(
        "Random layers: one a repetition, with the same steps and parameters. The amplified rows have the same strengths."
    )
    for kind in results.kinds:
        _table(document, results, kind, names, "Table 3")


def _outside(document: Document, study: Study, results: Results) -> None:
    document.section("Prompts from outside the domain (Table 6)", "outside")
    names = {
        f"outside, {name}": TREATMENTS[name] for name in ("neutral", "explicit", "amplified", "enhanced")
    }
    document.paragraph(
        "Sentences of another kind than any caption in training, such as “seen in the street this morning: …”."
    )
    for kind in results.kinds:
        _table(document, results, kind, names, "Table 6", "outside, neutral", "outside, explicit")


def _english_part(document: Document, study: Study, results: Results) -> None:
    document.section("A neutral English prompt with each culture's neurons (Fig. 13)", "english")
    for kind in results.kinds:
        lines = [
            [culture.name, str(share(_only(results.rows(kind, "English, amplified"), code), "culture"))]
            for code, culture in CULTURES.items()
        ]
        document.table(("neurons of", "judged that culture %"), lines, NAMES[kind])
        names = {"translated": "neutral English prompt", "English, amplified": "with the column's neurons"}
        document.picture(
            results.sheet(kind, names), f"{NAMES[kind]}: one English prompt, the neurons of the column"
        )


def _beyond(document: Document, study: Study, results: Results) -> None:
    document.section("Beyond the paper", "beyond")
    document.paragraph(
        "The same number of neurons at other places and in the paper's mode. Places have one strength for all "
        "cultures, chosen on validation prompts, and are measured in the first repetition; the amplified row has "
        "one strength a culture."
    )
    for kind in results.kinds:
        names = {"neutral": "neutral prompt", "amplified": "amplified (inject)", "scale": "scale, same strengths",
                 "scale, paper's strength": f"scale, strength {PAPER_STRENGTH:g}"}  # fmt: skip
        names |= {name: name.replace("_", " ") for name in study.variants(kind)}
        _table(document, results, kind, names, "modes and places")


def _tried(document: Document, study: Study, results: Results) -> None:
    document.section("What was tried (validation prompts)", "tried")
    document.paragraph(
        "Every candidate with its best strength. Chosen: of those that leave at most 20 % of the explicit score "
        "when masked, the one with most pictures right in culture and noun. Of the enhancers the one with most "
        "pictures right."
    )
    for kind in results.kinds:
        for what, tried in (("amplifiers", study.tried(kind)), ("enhancers", study.tried_enhancers(kind))):
            document.table(
                [name.replace("_", " ") for name in tried[0]],
                [list(one.values()) for one in tried],
                f"{NAMES[kind]}: {what}",
                ".3g",
            )
    document.section("Before the candidates were settled", "trials", level=2)
    document.paragraph("By hand, on validation prompts as well: where an enhancer goes, and longer training.")
    document.table(
        ("system", "enhancer after layer", "steps", "CultureVQA %", "noun %"),
        [
            [SHORT[one.kind], one.layer, one.steps, 100 * one.culture, one.noun and 100 * one.noun]
            for one in ENHANCERS
        ],
        "Enhancers tried by hand",
        ".1f",
    )
    document.table(("tried", "found"), OTHERS, "Other trials by hand")
    document.paragraph(READING)
    nouns = (
        f"{NAMES[kind]} {results.share(kind, 'explicit', 'noun')}, neutral {results.share(kind, 'neutral', 'noun')}"
        for kind in results.kinds
    )
    document.paragraph(f"Nouns right with explicit held-out prompts: {'; '.join(nouns)}.")


def _paper(document: Document, study: Study, results: Results) -> None:
    document.section("The paper's contradictions, and the reading that is followed", "paper")
    document.table(("in the paper", "reading"), CONTRADICTIONS, "Contradictions")
    document.paragraph(
        "Where the paper's column is empty, the paper prints no number: a picture only, or nothing."
    )


def _plain(cell: Cell | str | None) -> str | None:
    return f"{cell.value} ({cell.mark})" if isinstance(cell, Cell) else cell


def _only(rows: Sequence[Row], code: str) -> list[dict[str, Any]]:
    """The rows' pictures of one culture."""
    return [
        {"culture": [value for value, own in zip(row["culture"], row["of"], strict=True) if own == code]}
        for row in rows
    ]
