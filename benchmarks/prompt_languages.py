"""How often is a prompt's language told, and how often rightly?

    python benchmarks/prompt_languages.py [--thresholds 0.05 0.1 0.2]

The miniature's words in 16 languages as bare nouns, with a modifier, in neutral captions, in sentences, and
with English quality tags behind them; and prompts in languages that no culture goes with, where any steering
is wrong. The table gives the share of prompts for which a language is named ("acts"), the share of those that
are right, and how many prompts a wrong culture would be brought into.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))
from culture_core.cultures import CULTURES  # noqa: E402
from culture_core.languages import THRESHOLD, Detection, detect_culture  # noqa: E402
from culture_core.miniature.captions import ALL_NOUNS, WORDS, caption  # noqa: E402

TAGS = ", masterpiece, best quality, highly detailed, 8k"
OTHERS = {
    "sv": ("ett hus vid sjön", "tekanna", "en fågel på en bro", "röd stol", "gammal båt i dimma"),
    "da": ("et hus ved søen", "tepotte", "en fugl på en bro", "rød stol", "gammel båd i tåge"),
    "no": ("et hus ved innsjøen", "tekanne", "en fugl på en bro", "rød stol", "gammel båt i tåke"),
    "is": ("hús við vatnið", "tepottur", "fugl á brú", "rauður stóll", "gamall bátur í þoku"),
    "fi": ("talo järven rannalla", "teekannu", "lintu sillalla", "punainen tuoli", "vanha vene sumussa"),
    "et": ("maja järve ääres", "teekann", "lind sillal", "punane tool", "vana paat udus"),
    "lt": ("namas prie ežero", "arbatinukas", "paukštis ant tilto", "raudona kėdė", "sena valtis rūke"),
    "cs": ("dům u jezera", "konvice na čaj", "pták na mostě", "červená židle", "stará loď v mlze"),
    "sk": ("dom pri jazere", "čajník", "vták na moste", "červená stolička", "stará loď v hmle"),
    "hr": ("kuća uz jezero", "čajnik", "ptica na mostu", "crvena stolica", "stari brod u magli"),
    "sl": ("hiša ob jezeru", "čajnik", "ptica na mostu", "rdeč stol", "stara ladja v megli"),
    "hu": ("ház a tónál", "teáskanna", "madár a hídon", "piros szék", "régi hajó a ködben"),
    "ro": ("o casă lângă lac", "ceainic", "o pasăre pe un pod", "scaun roșu", "barcă veche în ceață"),
    "ca": ("una casa vora el llac", "tetera", "un ocell sobre un pont", "cadira vermella", "barca vella"),
    "eu": ("etxe bat laku ondoan", "teontzia", "txori bat zubian", "aulki gorria", "itsasontzi zaharra"),
    "bg": ("къща до езерото", "чайник", "птица на мост", "червен стол", "стара лодка в мъгла"),
    "sr": ("кућа крај језера", "чајник", "птица на мосту", "црвена столица", "стари брод у магли"),
    "be": ("дом каля возера", "чайнік", "птушка на мосце", "чырвонае крэсла", "старая лодка ў тумане"),
    "el": ("σπίτι δίπλα στη λίμνη", "τσαγιέρα", "πουλί σε γέφυρα", "κόκκινη καρέκλα", "παλιά βάρκα"),
    "az": ("göl kənarında ev", "çaydan", "körpüdə quş", "qırmızı stul", "dumanda köhnə qayıq"),
    "fa": ("خانه‌ای کنار دریاچه", "قوری", "پرنده روی پل", "صندلی قرمز", "قایق قدیمی در مه"),
    "ur": ("جھیل کے کنارے گھر", "چائے دانی", "پل پر پرندہ", "سرخ کرسی", "پرانی کشتی"),
    "he": ("בית ליד האגם", "קומקום", "ציפור על גשר", "כיסא אדום", "סירה ישנה"),
    "hi": ("झील के किनारे घर", "चायदानी", "पुल पर पक्षी", "लाल कुर्सी", "पुरानी नाव"),
    "vi": ("ngôi nhà bên hồ", "ấm trà", "con chim trên cầu", "ghế màu đỏ", "thuyền cũ trong sương"),
    "ms": ("rumah di tepi tasik", "teko teh", "burung di atas jambatan", "kerusi merah", "perahu lama"),
}
"""Prompts in languages without a culture here: a house by the lake, teapot, a bird on a bridge, red chair,
old boat in mist."""


class Quality(NamedTuple):
    """What became of the prompts of one kind."""

    prompts: int
    acted: int
    """A language was named."""
    right: int
    wrong_cultures: list[tuple[str, str, Detection]]
    """(language, prompt, what was found), where a culture would be brought in that is not the language's."""


def kinds() -> dict[str, list[tuple[str, str]]]:
    """(language, prompt) by kind."""
    return {
        "bare noun": _texts(lambda code, noun: [caption(code, noun).text]),
        "modifier + noun": _texts(_modified),
        "neutral caption": _texts(
            lambda code, noun: [caption(code, noun, wrapper=n).text for n in range(1, 10)]
        ),
        "sentence": _texts(lambda code, noun: [caption(code, noun, wrapper=n).text for n in (10, 11)]),
        "noun, English tags": _texts(lambda code, noun: [caption(code, noun).text + TAGS]),
        "other languages": [(code, text) for code, texts in OTHERS.items() for text in texts],
    }


def measure(prompts: list[tuple[str, str]], threshold: float = THRESHOLD) -> Quality:
    acted, right, wrong = 0, 0, []
    for language, text in prompts:
        found = detect_culture(text, threshold)
        acted += found.language is not None
        right += found.language == language
        if found.culture not in (None, language):
            wrong.append((language, text, found))
    return Quality(len(prompts), acted, right, wrong)


def _texts(write: Callable[[str, str], list[str]]) -> list[tuple[str, str]]:
    return [(code, text) for code in WORDS for noun in ALL_NOUNS for text in write(code, noun)]


def _modified(code: str, noun: str) -> list[str]:
    cultures = [code] if code in CULTURES else ["ja", "it"]
    return [caption(code, noun, culture, variant).text for culture in cultures for variant in (0, 1)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--thresholds", type=float, nargs="+", default=[THRESHOLD])
    for threshold in parser.parse_args().thresholds:
        print(f"threshold {threshold}")
        print(f"{'':20}{'prompts':>8}{'acts':>8}{'right':>8}{'wrong cultures':>16}")
        for kind, prompts in kinds().items():
            count, acted, right, wrong = measure(prompts, threshold)
            shares = f"{acted / count:>8.1%}{right / max(acted, 1):>8.1%}"
            print(f"{kind:20}{count:>8}{shares}{len(wrong):>16}")


if __name__ == "__main__":
    main()
