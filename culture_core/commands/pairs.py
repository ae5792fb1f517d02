"""Make prompt pairs from a short text: nouns in braces, culture modifiers in brackets.

A prompt pair says the same with a culture modifier and without; probing, training and detection learn from
pairs. One line makes many, because every combination of alternatives is made:

  # culture: text
  th: {ชาม|บ้าน|เรือ} [สไตล์ไทย|แบบไทย]
  ja: [和風の] {茶碗|家|船}
  it/en: a {bowl|house|boat} [in the Italian style] on a table

Lines that start with # are notes. The language is the culture's own unless it follows after a slash.

example:
  python -m culture_core pairs my_words.txt --output my_pairs.jsonl
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from .common import CommandError, add_overwrite_argument, new_file

SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("markup", type=Path, metavar="FILE.txt", help="the text, UTF-8")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE.jsonl", help="where the prompt pairs go"
    )
    add_overwrite_argument(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..markup import pairs_from_markup
    from ..pairs import save_pairs

    output = new_file(options.output, options.overwrite)
    try:
        text = options.markup.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{options.markup}: cannot be read as a UTF-8 text file ({error})") from error
    pairs = pairs_from_markup(text, str(options.markup))
    save_pairs(pairs, output)
    return {
        "pairs": len(pairs),
        "cultures": dict(Counter(pair.culture for pair in pairs)),
        "examples": [[pair.cultural, pair.neutral] for pair in pairs[:SHOWN]],
        "output": str(output),
    }


def describe(result: dict[str, Any]) -> str:
    cultures = ", ".join(f"{code} {count}" for code, count in result["cultures"].items())
    examples = [f"  {cultural}  |  {neutral}" for cultural, neutral in result["examples"]]
    return "\n".join(
        [f"{result['pairs']} prompt pairs ({cultures}) in {result['output']}", "The first ones:", *examples]
    )
