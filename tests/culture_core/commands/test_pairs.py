"""`pairs` writes what `load_pairs` reads."""

import json

from culture_core.__main__ import main
from culture_core.pairs import load_pairs


def test_a_text_becomes_a_file_of_prompt_pairs(tmp_path, capsys):
    words, output = tmp_path / "words.txt", tmp_path / "pairs.jsonl"
    words.write_text("th: {ชาม|บ้าน} [สไตล์ไทย]\nfr: {bol} [de style français]\n", encoding="utf-8")
    assert main(["pairs", str(words), "--output", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cultures"] == {"th": 2, "fr": 1}
    assert [pair.cultural for pair in load_pairs(output)] == [
        "ชาม สไตล์ไทย", "บ้าน สไตล์ไทย", "bol de style français",
    ]  # fmt: skip
    before = output.read_bytes()
    words.write_text("th: {ชาม} [สไตล์ไทย]\n", encoding="utf-8")
    assert main(["pairs", str(words), "--output", str(output)]) == 1  # nothing is replaced unasked
    assert output.read_bytes() == before
    assert main(["pairs", str(words), "--output", str(output), "--overwrite"]) == 0
    assert "1 prompt pairs (th 1)" in capsys.readouterr().out and len(load_pairs(output)) == 1
    words.write_bytes(b"\xff\xfe")
    assert main(["pairs", str(words), "--output", str(output), "--overwrite"]) == 1
    assert len(load_pairs(output)) == 1
