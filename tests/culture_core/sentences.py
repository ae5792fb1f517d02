"""Short sentences in the 15 languages, and text that is hard on tokenizers. Used by several tests."""

from __future__ import annotations

import random

# language -> (patterns, nouns): every pattern with every noun makes a sentence.
PATTERNS: dict[str, tuple[list[str], list[str]]] = {
    "ar": (
        ["{} في الصباح", "صورة {} قديم", "أرى {} بجانب البحر، أليس كذلك؟", "{}", "لوحةٌ لـ{} بألوانٍ زاهيةٍ"],
        ["بيت", "جسر", "قارب", "إبريق شاي", "حديقة", "مصباح", "حصان", "سوق"],
    ),
    "zh": (
        ["一座{}", "湖边有{}，很安静。", "我想画{}", "{}的照片，2024年", "传统的{}和现代的城市"],
        ["房子", "桥", "船", "茶壶", "花园", "灯笼", "马", "市场"],
    ),
    "ja": (
        ["{}の写真", "海のそばに{}があります。", "古い{}", "これは「{}」ですか？", "雨の日の{}とカフェ"],
        ["家", "橋", "ボート", "急須", "庭園", "ランプ", "馬", "市場"],
    ),
    "ko": (
        ["{}의 사진", "바닷가에 {}이 있습니다.", "오래된 {}", "나는 {}을 그리고 싶어요!", "{}, 그리고 봄"],
        ["집", "다리", "배", "찻주전자", "정원", "등불", "말", "시장"],
    ),
    "th": (
        ["ภาพถ่ายของ{}", "มี{}อยู่ริมทะเล", "{}เก่าแก่", "ฉันอยากวาด{}", "น้ำและ{}ในตอนเช้า"],
        ["บ้าน", "สะพาน", "เรือ", "กาน้ำชา", "สวน", "โคมไฟ", "ม้า", "ตลาด"],
    ),
    "de": (
        ["ein Foto von {}", "Am Fluss steht {}, ganz still.", "Möchtest du {} sehen?", "{}", "größer als {}"],
        ["Haus", "Brücke", "Boot", "Teekanne", "Garten", "Laterne", "Pferd", "Straßenmarkt"],
    ),
    "ru": (
        ["фотография: {}", "У реки стоит {}.", "старый {} зимой", "Где же {}?", "я рисую {} и ёлку"],
        ["дом", "мост", "лодка", "чайник", "сад", "фонарь", "конь", "рынок"],
    ),
    "it": (
        [
            "una foto di {}",
            "C'è {} vicino al mare.",
            "Perché {}?",
            "{} antico",
            "l'estate, {} e poi più nulla",
        ],
        ["casa", "ponte", "barca", "teiera", "giardino", "lanterna", "cavallo", "mercato"],
    ),
    "nl": (
        [
            "een foto van {}",
            "Bij de rivier staat {}.",
            "Wil je {} zien?",
            "het oude {}",
            "{} in 's-Hertogenbosch",
        ],
        ["huis", "brug", "boot", "theepot", "tuin", "lantaarn", "paard", "markt"],
    ),
    "pl": (
        ["zdjęcie: {}", "Nad rzeką stoi {}.", "Czy widzisz {}?", "stary {} zimą", "żółta łódź i {}"],
        ["dom", "most", "łódka", "czajnik", "ogród", "latarnia", "koń", "rynek"],
    ),
    "tr": (
        ["{} fotoğrafı", "Deniz kenarında {} var.", "Eski bir {}", "Neden {}?", "İstanbul'da {} ve ışık"],
        ["ev", "köprü", "tekne", "çaydanlık", "bahçe", "fener", "at", "çarşı"],
    ),
    "uk": (
        [
            "фотографія: {}",
            "Біля річки стоїть {}.",
            "старий {} взимку",
            "Де ж {}?",
            "м'яке світло, {} і їжак",
        ],
        ["дім", "міст", "човен", "чайник", "сад", "ліхтар", "кінь", "ринок"],
    ),
    "es": (
        ["una foto de {}", "Junto al mar hay {}.", "¿Por qué {}?", "¡Qué {} tan bonito!", "{} del año 1900"],
        ["casa", "puente", "barco", "tetera", "jardín", "farol", "caballo", "mercado"],
    ),
    "pt": (
        [
            "uma fotografia de {}",
            "Perto do mar há {}.",
            "Onde está {}?",
            "{} antigo",
            "a canção, {} e o coração",
        ],
        ["casa", "ponte", "barco", "bule", "jardim", "lampião", "cavalo", "feira"],
    ),
    "fr": (
        [
            "une photo de {}",
            "Au bord de l'eau, il y a {}.",
            "Où est {} ?",
            "« {} »",
            "un vieux {} à Noël, cœur d'été",
        ],
        ["maison", "pont", "bateau", "théière", "jardin", "lanterne", "cheval", "marché"],
    ),
}

HARD: list[str] = [
    "a house 🏠 by the lake 🌊",
    "👩‍🎨 peint, 👨‍👩‍👧‍👦 regardent 👍🏽",
    "🇯🇵 🇩🇪 🇹🇷 flags",
    "ｆｕｌｌ　ｗｉｄｔｈ　ＨＯＵＳＥ １２３",
    "ﾊﾝｶｸ ｶﾞ ﾊﾟ ｶﾀｶﾅ",
    "ﬁne ﬂowers, eﬃcient oﬀice, ﬅ ĳ Ǆ",
    "cafe\u0301 nai\u0308ve A\u030aland",
    "ａ\u0301 ﬁ\u0301 ª\u0301 ﷺ ﻻ\u064e",
    "น้ำ ก็ เป็น ำ",
    "\u1100\u1161\u11a8 한 ㄱㅏ",
    "half ½ quarter ¼ ② ⅷ ™ ℃ № ㍿ ㌔",
    "superscript x² and H₂O",
    "  leading and   many    spaces  ",
    "tab\tnewline\nreturn\r\nend",
    "no\u00a0break\u2003em\u200bzero\u200dwidth\ufeff",
    "\x01control\x02 at the start",
    "(blue:1.3) [house], {garden} <lora:x:1> \\(escaped\\)",
    "𝔊𝔬𝔱𝔥𝔦𝔠 𝕙𝕠𝕦𝕤𝕖 𝟘𝟙𝟚",
    "unknown 𒀀𒀁 𓀀 \U0001f9ff\U0001fae8 ꙮ end",
    "▁ literal ▁▁ marks",
    "Ünïcödé ȘȚ ßẞ ĲĳŒœ",
    "עברית ελληνικά हिन्दी বাংলা አማርኛ ქართული",
    "don't stop—believing… “quotes” ‘single’ „low“",
    "https://a.example/b?c=d&e=%20",
    "Donaudampfschifffahrtsgesellschaftskapitän",
    "１つ目の家。２つ目の家！",
    "٣ بيوت و ۴ خانه",
]


def by_language() -> dict[str, list[str]]:
    """language -> 40 sentences."""
    return {
        language: [pattern.format(noun) for pattern in patterns for noun in nouns]
        for language, (patterns, nouns) in PATTERNS.items()
    }


def all_sentences() -> list[str]:
    """600 sentences in 15 languages, and the hard ones."""
    return [sentence for sentences in by_language().values() for sentence in sentences] + HARD


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Texts of random code points from the blocks where normalisation has something to do."""
    blocks = [(0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x400, 0x4FF), (0x600, 0x6FF), (0xE00, 0xE7F)]
    blocks += [(0x1100, 0x11FF), (0x2000, 0x21FF), (0x3040, 0x33FF), (0x4E00, 0x4FFF), (0xAC00, 0xACFF)]
    blocks += [(0xFB00, 0xFDFF), (0xFE00, 0xFEFF), (0xFF00, 0xFFEF), (0x12000, 0x12010), (0x1F300, 0x1F6FF)]
    generator = random.Random(seed)
    return [
        "".join(chr(generator.randint(*generator.choice(blocks))) for _ in range(generator.randint(1, 24)))
        for _ in range(count)
    ]
