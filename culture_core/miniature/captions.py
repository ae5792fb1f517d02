"""Prompts of the miniature in 15 languages and English, and which of them may be trained on.

A phrase is a noun with or without a culture modifier; a wrapper puts it into a caption. Nouns are in
the nominative everywhere and the modifiers are indeclinable phrases, so that no grammar is needed.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from ..cultures import CULTURES
from ..marks import read_marks
from ..modifiers import ENGLISH_MODIFIERS, MODIFIERS
from ..pairs import PromptPair

NOUNS = (
    "house", "tree", "bottle", "bowl", "dress", "fish", "boat", "chair",
    "hat", "teapot", "bird", "bridge", "lamp", "bed",
)  # fmt: skip
HELD_OUT_NOUNS = ("umbrella", "guitar")
ALL_NOUNS = NOUNS + HELD_OUT_NOUNS

WORDS: dict[str, tuple[str, ...]] = {
    "en": ("house", "tree", "bottle", "bowl", "dress", "fish", "boat", "chair",
           "hat", "teapot", "bird", "bridge", "lamp", "bed", "umbrella", "guitar"),
    "ar": ("منزل", "شجرة", "زجاجة", "وعاء", "فستان", "سمكة", "قارب", "كرسي",
           "قبعة", "إبريق شاي", "طائر", "جسر", "مصباح", "سرير", "مظلة", "غيتار"),
    "zh": ("房子", "树", "瓶子", "碗", "裙子", "鱼", "船", "椅子",
           "帽子", "茶壶", "鸟", "桥", "灯", "床", "雨伞", "吉他"),
    "ja": ("家", "木", "瓶", "お椀", "ドレス", "魚", "ボート", "椅子",
           "帽子", "急須", "鳥", "橋", "ランプ", "ベッド", "傘", "ギター"),
    "ko": ("집", "나무", "병", "그릇", "드레스", "물고기", "배", "의자",
           "모자", "찻주전자", "새", "다리", "램프", "침대", "우산", "기타"),
    "th": ("บ้าน", "ต้นไม้", "ขวด", "ชาม", "ชุดเดรส", "ปลา", "เรือ", "เก้าอี้",
           "หมวก", "กาน้ำชา", "นก", "สะพาน", "โคมไฟ", "เตียง", "ร่ม", "กีตาร์"),
    "de": ("Haus", "Baum", "Flasche", "Schüssel", "Kleid", "Fisch", "Boot", "Stuhl",
           "Hut", "Teekanne", "Vogel", "Brücke", "Lampe", "Bett", "Regenschirm", "Gitarre"),
    "ru": ("дом", "дерево", "бутылка", "миска", "платье", "рыба", "лодка", "стул",
           "шляпа", "чайник", "птица", "мост", "лампа", "кровать", "зонт", "гитара"),
    "it": ("casa", "albero", "bottiglia", "ciotola", "vestito", "pesce", "barca", "sedia",
           "cappello", "teiera", "uccello", "ponte", "lampada", "letto", "ombrello", "chitarra"),
    "nl": ("huis", "boom", "fles", "kom", "jurk", "vis", "boot", "stoel",
           "hoed", "theepot", "vogel", "brug", "lamp", "bed", "paraplu", "gitaar"),
    "pl": ("dom", "drzewo", "butelka", "miska", "sukienka", "ryba", "łódź", "krzesło",
           "kapelusz", "czajnik", "ptak", "most", "lampa", "łóżko", "parasol", "gitara"),
    "tr": ("ev", "ağaç", "şişe", "kâse", "elbise", "balık", "tekne", "sandalye",
           "şapka", "çaydanlık", "kuş", "köprü", "lamba", "yatak", "şemsiye", "gitar"),
    "uk": ("будинок", "дерево", "пляшка", "миска", "сукня", "риба", "човен", "стілець",
           "капелюх", "чайник", "птах", "міст", "лампа", "ліжко", "парасолька", "гітара"),
    "es": ("casa", "árbol", "botella", "cuenco", "vestido", "pez", "barco", "silla",
           "sombrero", "tetera", "pájaro", "puente", "lámpara", "cama", "paraguas", "guitarra"),
    "pt": ("casa", "árvore", "garrafa", "tigela", "vestido", "peixe", "barco", "cadeira",
           "chapéu", "bule", "pássaro", "ponte", "candeeiro", "cama", "guarda-chuva", "guitarra"),
    "fr": ("maison", "arbre", "bouteille", "bol", "robe", "poisson", "bateau", "chaise",
           "chapeau", "théière", "oiseau", "pont", "lampe", "lit", "parapluie", "guitare"),
}  # fmt: skip
"""Words of `ALL_NOUNS`, in that order, by language."""

WRAPPERS: dict[str, tuple[str, str, str, str]] = {
    "en": ("{}", "picture: {}", "{}, illustration", "drawing of: {}"),
    "ar": ("{}", "صورة: {}", "{}، رسم توضيحي", "لوحة: {}"),
    "zh": ("{}", "图片：{}", "{}，插图", "绘画：{}"),
    "ja": ("{}", "写真：{}", "{}、イラスト", "絵：{}"),
    "ko": ("{}", "사진: {}", "{}, 일러스트", "그림: {}"),
    "th": ("{}", "ภาพ: {}", "{} ภาพประกอบ", "ภาพวาด: {}"),
    "de": ("{}", "Bild: {}", "{}, Illustration", "Zeichnung: {}"),
    "ru": ("{}", "картинка: {}", "{}, иллюстрация", "рисунок: {}"),
    "it": ("{}", "immagine: {}", "{}, illustrazione", "disegno: {}"),
    "nl": ("{}", "afbeelding: {}", "{}, illustratie", "tekening: {}"),
    "pl": ("{}", "obraz: {}", "{}, ilustracja", "rysunek: {}"),
    "tr": ("{}", "resim: {}", "{}, illüstrasyon", "çizim: {}"),
    "uk": ("{}", "зображення: {}", "{}, ілюстрація", "малюнок: {}"),
    "es": ("{}", "imagen: {}", "{}, ilustración", "dibujo: {}"),
    "pt": ("{}", "imagem: {}", "{}, ilustração", "desenho: {}"),
    "fr": ("{}", "image : {}", "{}, illustration", "dessin : {}"),
}
"""Captions around a phrase; the last of each language is kept for validation and test prompts."""

STUDY_WRAPPERS: dict[str, tuple[str, ...]] = {
    "en": ("photo: {}", "poster: {}", "{}, watercolour", "icon: {}", "{} – sketch", "scene: {}"),
    "ar": ("صورة فوتوغرافية: {}", "ملصق: {}", "{}، ألوان مائية", "أيقونة: {}", "{} – رسم تخطيطي", "لقطة: {}"),
    "zh": ("照片：{}", "海报：{}", "{}，水彩画", "图标：{}", "{} – 草图", "镜头：{}"),
    "ja": ("画像：{}", "ポスター：{}", "{}、水彩", "アイコン：{}", "{} – スケッチ", "ショット：{}"),
    "ko": ("포토: {}", "포스터: {}", "{}, 수채화", "아이콘: {}", "{} – 스케치", "장면: {}"),
    "th": ("รูปถ่าย: {}", "โปสเตอร์: {}", "{} สีน้ำ", "ไอคอน: {}", "{} – ภาพร่าง", "ฉาก: {}"),
    "de": ("Foto: {}", "Plakat: {}", "{}, Aquarell", "Symbol: {}", "{} – Skizze", "Szene: {}"),
    "ru": ("фотография: {}", "плакат: {}", "{}, акварель", "значок: {}", "{} – эскиз", "сцена: {}"),
    "it": ("fotografia: {}", "manifesto: {}", "{}, acquerello", "icona: {}", "{} – schizzo", "scena: {}"),
    "nl": ("foto: {}", "affiche: {}", "{}, aquarel", "pictogram: {}", "{} – schets", "scène: {}"),
    "pl": ("zdjęcie: {}", "plakat: {}", "{}, akwarela", "ikona: {}", "{} – szkic", "scena: {}"),
    "tr": ("fotoğraf: {}", "afiş: {}", "{}, suluboya", "simge: {}", "{} – eskiz", "sahne: {}"),
    "uk": ("фотографія: {}", "плакат: {}", "{}, акварель", "піктограма: {}", "{} – ескіз", "сцена: {}"),
    "es": ("fotografía: {}", "cartel: {}", "{}, acuarela", "icono: {}", "{} – boceto", "escena: {}"),
    "pt": ("fotografia: {}", "cartaz: {}", "{}, aguarela", "ícone: {}", "{} – esboço", "cena: {}"),
    "fr": ("photo : {}", "affiche : {}", "{}, aquarelle", "icône : {}", "{} – croquis", "scène : {}"),
}  # fmt: skip
"""More captions to train on, which the shipped miniature does not use and the reproduced study does."""

OUTSIDE_WRAPPERS: dict[str, tuple[str, str]] = {
    "en": ("my grandmother's favourite thing: {}", "seen in the street this morning: {}"),
    "ar": ("الشيء المفضل لدى جدتي: {}", "رأيته في الشارع هذا الصباح: {}"),
    "zh": ("奶奶最喜欢的东西：{}", "今天早上在街上看到的：{}"),
    "ja": ("祖母の一番好きなもの：{}", "今朝道で見かけたもの：{}"),
    "ko": ("할머니가 가장 좋아하는 것: {}", "오늘 아침 길에서 본 것: {}"),
    "th": ("สิ่งที่คุณยายชอบที่สุด: {}", "สิ่งที่เห็นบนถนนเมื่อเช้านี้: {}"),
    "de": ("das Lieblingsstück meiner Großmutter: {}", "heute Morgen auf der Straße gesehen: {}"),
    "ru": ("любимая вещь моей бабушки: {}", "увидено сегодня утром на улице: {}"),
    "it": ("la cosa preferita di mia nonna: {}", "visto per strada stamattina: {}"),
    "nl": ("het lievelingsding van mijn oma: {}", "vanmorgen op straat gezien: {}"),
    "pl": ("ulubiona rzecz mojej babci: {}", "widziane dziś rano na ulicy: {}"),
    "tr": ("büyükannemin en sevdiği şey: {}", "bu sabah sokakta gördüğüm: {}"),
    "uk": ("улюблена річ моєї бабусі: {}", "побачено сьогодні вранці на вулиці: {}"),
    "es": ("la cosa favorita de mi abuela: {}", "visto en la calle esta mañana: {}"),
    "pt": ("a coisa preferida da minha avó: {}", "visto na rua esta manhã: {}"),
    "fr": ("la chose préférée de ma grand-mère : {}", "vu dans la rue ce matin : {}"),
}
"""Sentences of another kind than any caption that is trained on: prompts from outside the domain."""

TRAINING_WRAPPERS = (0, 1, 2)
HELD_OUT_WRAPPER = 3
STUDY_TRAINING_WRAPPERS = (*TRAINING_WRAPPERS, 4, 5, 6, 7, 8, 9)
OUTSIDE_DOMAIN_WRAPPERS = (10, 11)


def all_wrappers(language: str) -> tuple[str, ...]:
    """All captions around a phrase, by the numbers above."""
    return WRAPPERS[language] + STUDY_WRAPPERS[language] + OUTSIDE_WRAPPERS[language]


def held_out_nouns(culture: str) -> tuple[str, str, str]:
    """The trained nouns that are never shown in a culture: two for the test, then one for validation."""
    i = list(CULTURES).index(culture)
    first, second, third = (NOUNS[(3 * i + shift) % len(NOUNS)] for shift in (0, 5, 9))
    return first, second, third


def split_of(culture: str, noun: str) -> str:
    """`train`; `validation` or `test`, a combination never trained on; `unseen`, a noun never trained on."""
    if noun in HELD_OUT_NOUNS:
        return "unseen"
    *test, validation = held_out_nouns(culture)
    return "test" if noun in test else "validation" if noun == validation else "train"


class Caption(NamedTuple):
    """One prompt of the miniature with the spans that probing needs (code points, end exclusive)."""

    text: str
    language: str
    culture: str | None
    """The culture that the caption names, or None."""
    noun: str
    modifier_span: tuple[int, int] | None
    noun_span: tuple[int, int]
    variant: int = 0
    """Which of the two modifier phrases."""
    wrapper: int = 0


def caption(
    language: str, noun: str, culture: str | None = None, variant: int = 0, wrapper: int = 0
) -> Caption:
    """Write one caption.

    Args:
        language: a code of `WORDS`; a culture modifier is its own culture's, or any in English.
        variant: which of the two modifier phrases.
        wrapper: which caption around the phrase.
    """
    word = WORDS[language][ALL_NOUNS.index(noun)]
    if culture is None:
        pattern = "{}"
    elif language == "en":
        pattern = ENGLISH_MODIFIERS[variant].format(culture=CULTURES[culture].name)
    elif language == culture:
        pattern = MODIFIERS[language][variant]
    else:
        raise ValueError(
            f"no {CULTURES[culture].name} modifier in {language!r}: use that culture's language or English"
        )
    marked = all_wrappers(language)[wrapper].format(pattern.format("<" + word + ">"))
    text, modifiers, nouns = read_marks(marked)
    modifier = modifiers[0] if culture else None
    return Caption(text, language, culture, noun, modifier, nouns[0], variant, wrapper)


def training_captions(wrappers: Sequence[int] = TRAINING_WRAPPERS) -> list[Caption]:
    """Every caption that the miniature is trained on. Held-out nouns and combinations never occur with
    their culture, and no caption uses the held-out wrapper."""
    captions = []
    for language in WORDS:
        for noun, wrapper in itertools.product(NOUNS, wrappers):
            captions.append(caption(language, noun, None, 0, wrapper))
    for culture, noun, wrapper, variant in itertools.product(CULTURES, NOUNS, wrappers, (0, 1)):
        if split_of(culture, noun) == "train":
            captions.append(caption(culture, noun, culture, variant, wrapper))
            captions.append(caption("en", noun, culture, variant, wrapper))
    return captions


def _pair(culture: str, noun: str, language: str, variant: int, wrapper: int) -> PromptPair:
    cultural = caption(language, noun, culture, variant, wrapper)
    neutral = caption(language, noun, None, 0, wrapper)
    return PromptPair(
        id=f"{culture}-{language}-{noun}-{variant}{wrapper}",
        culture=culture,
        language=language,
        cultural=cultural.text,
        neutral=neutral.text,
        modifiers=(cultural.modifier_span or (0, 0),),
        nouns_cultural=(cultural.noun_span,),
        nouns_neutral=(neutral.noun_span,),
        category=noun,
        region=CULTURES[culture].region,
        english=caption("en", noun, culture).text,
        split=split_of(culture, noun),
    )


def prompt_pairs(split: str, english: bool = False) -> list[PromptPair]:
    """Prompt pairs of one split, in the cultures' own languages or all in English.

    `train` has every training wrapper, `validation`, `test` and `unseen` have the held-out wrapper alone.
    """
    wrappers = TRAINING_WRAPPERS if split == "train" else (HELD_OUT_WRAPPER,)
    return [
        _pair(culture, noun, "en" if english else culture, variant, wrapper)
        for culture, noun, variant, wrapper in itertools.product(CULTURES, ALL_NOUNS, (0, 1), wrappers)
        if split_of(culture, noun) == split
    ]
