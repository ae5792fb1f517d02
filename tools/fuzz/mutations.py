"""Making a bad case of a good one: strategies of Hypothesis over the files of a folder.

Files are changed as what they are, by their suffix (JSON by its values, safetensors by its header, its
metadata and its tensors), and as bytes.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

Files = dict[str, "bytes | Link"]
Draw = Callable[[st.SearchStrategy], Any]


class Link(str):
    """What a symbolic link points at, in place of a file's content."""


HOSTILE = [
    "null", "true", "false", "0", "-1", "1", "2", "7", "0.5", "-0.0", "9007199254740993", "1" + 30 * "0",
    "1" + 5000 * "0", "-2147483649", "1e308", "1e400", "NaN", "Infinity", "-Infinity", '""', '" "', '"x"',
    r'"\ud800"', r'"\u0000"', r'"a\nb"', '"ja"', '"th"', '"1"', '"-5"', '"../outside/secret.png"',
    '"../outside/secret.safetensors"', '"images/../../outside/secret.png"', '"/etc/passwd"',
    '"/proc/self/environ"', r'"..\\outside\\secret.png"', '"C:/x.png"', '"images/link.png"', '"link.png"',
    '"~/x"', '"."', '".."', '"images"', '"http://127.0.0.1:9/x.png"', '"file:///etc/passwd"', "[]", "{}",
    "[[]]", "[null]", "[1, 2]", "[0, 99999999999]", "[[0, 1]]", "[[1, 0]]", "[[0, 1e9]]", '{"a": 1}',
    '{"": []}', f'"{5000 * "x"}"', f'"{2000 * "é"}"', 900 * "[" + 900 * "]", 60000 * "[", '{"a":' * 30000,
    '"!!python/object/apply:os.system [id]"', '"%s%s%n"', '"<script>"', r'"\u202e\u200b"',
]  # fmt: skip
_BYTES = [b"\0", b"\xff", b"\n", b'"', b"\\", b"{", b"[", b"]", b"}", b",", b"\xef\xbb\xbf", b"\xed\xa0\x80",
          b"\r", b"\x85", b"\xe2\x80\xa8", b"\x0c", b"\0" * 40, b"9" * 20, b"*a", b"&a ", b"<<: "]  # fmt: skip
_DTYPES = ["F32", "F16", "BF16", "F64", "I64", "I32", "U8", "I8", "BOOL", "F8_E4M3", "F8_E5M2", "U16", "U64",
           "C64", "F4", "F8_E8M0", "X"]  # fmt: skip
_SIZES = {"F64": 8, "I64": 8, "U64": 8, "C64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "U16": 2}
_SHAPES: list[list] = [
    [], [0], [1], [2], [3], [4], [8], [1, 1], [2, 2], [4, 8], [8, 4], [0, 4], [1, 1, 1], [-1], [1.5], [1] * 70,
    [2**31, 2**31], [2**62], [2**64], [10**12, 0], [2**40],
]  # fmt: skip
_NUMBERS = [float("nan"), float("inf"), float("-inf"), -1.0, 0.0, 1e-45, 3.4e38, -3.4e38, 1e30]
_YAML = [
    b"a: &a [x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b]\n"
    b"d: &d [*c, *c, *c, *c, *c, *c]\ne: &e [*d, *d, *d, *d, *d, *d]\nf: &f [*e, *e, *e, *e, *e, *e]\n"
    b"systems: {x: {workflow: *f, slots: *f}}\n",
    b"systems: !!python/object/apply:os.system ['id']\n", b"systems: &x {a: *x}\n",
    b"systems: {2020-01-01: {folder: x}}\n", b"systems: {x: {folder: 2020-01-01}}\n",
    b"systems: {x: {folder: !!binary aGk=}}\n", b"systems: {x: {folder: !!set {a, b}}}\n",
    b"systems: {x: {folder: x, strengths: 1:30}}\n", b"systems: {? [a] : {folder: x}}\n",
    b"systems: {x: {<<: 3}}\n", b"systems: {x: {folder: .inf}}\n", b"systems: " + 3000 * b"[" + b"\n",
    b"systems:\n\tx: 1\n", b"--- 1\n--- 2\n", b"%YAML 9.9\n---\nsystems: {}\n",
    b"systems: {x: {folder: 2001-99-99}}\n", b"systems: {x: {folder: y, steps: 0x" + 4000 * b"f" + b"}}\n",
]  # fmt: skip
_TEXTS = [b"\0", b'"', b'""', b",,,,", b"\r", b"\n\n", b"=1+1", b"1e999", b"nan", b"-1", b"9" * 5000, b"x" * 200_000,
          b"\xff", b"\xef\xbb\xbf"]  # fmt: skip


def mutated(draw: Draw, good: Files) -> Files:
    """The files of a good case with one to four changes."""
    files = dict(good)
    for _ in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from(sorted(files) or ["nothing"]))
        content = files.get(name)
        if isinstance(content, bytes):
            files[name] = _changed(draw, name, content)
        if draw(st.integers(0, 24)) == 0:
            _rearrange(draw, files, name)
    return files


def _rearrange(draw: Draw, files: Files, name: str) -> None:
    """Take a file away, or make a link of a picture."""
    if name.endswith(".png"):
        files[name] = Link(
            draw(
                st.sampled_from(
                    ["../../outside/secret.png", "../outside/secret.png", "link.png", "/etc", "."]
                )
            )
        )
    else:
        files.pop(name, None)


def _changed(draw: Draw, name: str, content: bytes) -> bytes:
    how = _graph if name == "graph.json" else _KINDS.get(name.rpartition(".")[2], _bytes)
    if how is not _bytes and draw(st.integers(0, 3)):
        try:
            return how(draw, content)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, struct.error):
            pass  # an earlier change has left nothing of its kind
    return _bytes(draw, content)


# --------------------------------------------------------------------------------------------------- bytes


def _bytes(draw: Draw, content: bytes) -> bytes:
    start = draw(st.integers(0, len(content)))
    end = min(len(content), start + draw(st.sampled_from([0, 1, 1, 2, 4, 8, 64, 1 << 30])))
    before, middle, after = content[:start], content[start:end], content[end:]
    how = draw(st.integers(0, 6))
    if how == 0 and middle:  # a bit
        return before + bytes([middle[0] ^ 1 << draw(st.integers(0, 7))]) + content[start + 1 :]
    if how == 1:
        return before  # cut off
    if how == 2:
        return before + after  # cut out
    if how == 3:
        return before + middle + middle + after
    if how == 4:
        return before + draw(st.binary(max_size=16)) + after
    if how == 5:
        return before + struct.pack(draw(st.sampled_from(["<q", ">q", "<i", ">i"])), _integer(draw)) + after
    return before + draw(st.sampled_from(_BYTES)) + after


def _integer(draw: Draw) -> int:
    return draw(st.sampled_from([0, 1, -1, 2, 127, 255, 65535, 2**31 - 1, -(2**31), 1 << 20, 100_000_001]))


def _text(draw: Draw, content: bytes) -> bytes:
    """A cell or a line of a table."""
    if draw(st.booleans()):
        lines = content.split(b"\n")
        index = draw(st.integers(0, len(lines) - 1))
        cells = lines[index].split(b",")
        cells[draw(st.integers(0, len(cells) - 1))] = draw(st.sampled_from(_TEXTS))
        lines[index] = b",".join(cells)
        return b"\n".join(lines)
    lines = content.split(b"\n")
    index = draw(st.integers(0, len(lines) - 1))
    return b"\n".join(lines[: index + 1] + lines[index:])


# ---------------------------------------------------------------------------------------------------- JSON


def _json(draw: Draw, content: bytes) -> bytes:
    return _changed_json(draw, content.decode()).encode("utf-8", "surrogatepass")


def _jsonl(draw: Draw, content: bytes) -> bytes:
    lines = content.decode().split("\n")
    index = draw(st.integers(0, len(lines) - 1))
    how = draw(st.integers(0, 9))
    if how == 0:
        lines.insert(index, lines[index])
    elif how == 1:
        lines[index] = draw(st.sampled_from(HOSTILE))
    else:
        lines[index] = _changed_json(draw, lines[index])
    return "\n".join(lines).encode("utf-8", "surrogatepass")


_EXTREMES = [
    -1e308, -2.0, -1.0001, -1.0, -0.001, -0.0, 0, 1, 4.0, 4.0001, 12.0, 12.0001, 99, 999, 1000, 4096, 4097, 65536,
    1 << 20, (1 << 20) + 1, 10_000_001, 0xFFFFFFFF, 1 << 32, 1 << 64, 1e308, float("nan"), float("inf"), True,
    None, "", "1", "x" * 10_000, [], {}, ["1", 0], ["1", 99], ["99", 0], [1, 0], ["1"], ["1", 0, 0], [[]],
]  # fmt: skip
_WORDS = [
    "good.safetensors", "good.jsonl", "good.png", "tiny", "none", "../good.safetensors", "..", ".", "/", "/etc/passwd",
    "../../../outside/secret.safetensors", "../../outside/secret.png", "../../../../outside/secret.safetensors",
    "../outside/x", "..\\..\\outside\\x", "C:\\x", "~/x", "%2e%2e/x", "a/../../../outside/x", "x\0y", "x\ny",
    "con", "a" * 300, "é/ü", "%year%", "%date:yyyy%", "%KSampler.seed%", "x.safetensors", ".hidden", "\u202ex",
    "0: 3, 0.5: 0", "0: nan", "0: 1e999", "0.5: 1, 0.2: 1", ": , :", "0: 3," * 3000, "0, 1, 2.5", "0," * 5000, "much",
    "all", "clip_l", "multilingual_e5, bert", "house, old", ",,,", "(house:1e9)", "(" * 3000, "ja", "Japanese (ja)",
    "xx", "miniature", "vlm", "http://127.0.0.1:9/v1", "\ud83d\ude00", "\ud800", "embedding:../../outside/secret",
    "embedding:/etc/passwd", "{a|b}" * 500,
]  # fmt: skip


def _graph(draw: Draw, content: bytes) -> bytes:
    """An input at its extremes, a file's name, another link; or anything, as in other JSON."""
    if draw(st.integers(0, 4)) == 0:
        return _json(draw, content)
    graph = json.loads(content)
    inputs = graph[draw(st.sampled_from(sorted(graph)))]["inputs"]
    name = draw(st.sampled_from(sorted(inputs)))
    if isinstance(inputs[name], str) and draw(st.integers(0, 3)):
        inputs[name] = draw(st.sampled_from(_WORDS))
    else:
        inputs[name] = draw(st.sampled_from([*_EXTREMES, *_WORDS]))
    return json.dumps(graph).encode()


def _yaml(draw: Draw, content: bytes) -> bytes:
    """JSON is YAML."""
    import yaml

    if draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from(_YAML))
    try:
        return _json(draw, json.dumps(yaml.safe_load(content)).encode())
    except yaml.YAMLError as error:
        raise ValueError from error


_MARK = "@replaced@"


def _changed_json(draw: Draw, text: str) -> str:
    document = json.loads(text)
    holders: list[tuple[Any, Any]] = []
    _collect(document, holders)
    if not holders:
        return draw(st.sampled_from(HOSTILE))
    holder, key = draw(st.sampled_from(holders))
    how = draw(st.integers(0, 11))
    value, raw = holder[key], draw(st.sampled_from(HOSTILE)) if how < 6 else "null"
    if how < 6:
        holder[key] = _MARK
    elif how == 6:
        del holder[key]
    elif how == 7 and isinstance(holder, dict):
        holder[draw(st.sampled_from(["x", "", "format", "..", "__class__", "a" * 300]))] = holder.pop(key)
    elif how == 8:
        other, place = draw(st.sampled_from(holders))
        holder[key], other[place] = other[place], value
    elif how == 9 and isinstance(value, str):
        inner = draw(st.booleans()) and value[:1] in ("{", "[")
        added = draw(st.sampled_from(["", "x", " ", "/..", "\0", "é", "0"]))
        holder[key] = _changed_json(draw, value) if inner else value[: draw(st.integers(0, 20))] + added
    elif isinstance(value, int | float):
        holder[key] = draw(
            st.sampled_from([value + 1, value - 1, -value, value * 1000, value + 0.5, str(value)])
        )
    else:
        holder[key] = [value]
    # A document may contain itself after an exchange; json says so with a ValueError.
    written = json.dumps(document).replace(f'"{_MARK}"', raw)
    if written.startswith("{") and draw(st.integers(0, 19)) == 0:
        return '{"format": "x", "id": 1, ' + written[1:]
    return written


def _collect(value: Any, holders: list[tuple[Any, Any]]) -> None:
    if len(holders) > 300:
        return
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        holders.append((value, key))
        _collect(inner, holders)


# --------------------------------------------------------------------------------------------- safetensors


def _safetensors(draw: Draw, content: bytes) -> bytes:
    size = struct.unpack_from("<Q", content)[0]
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    how = draw(st.integers(0, 11))
    if how == 0:
        wrong = [0, 1, size - 1, size + 1, 100_000_001, 1 << 40, (1 << 63) - 1, (1 << 64) - 1, len(content)]
        return struct.pack("<Q", draw(st.sampled_from(wrong))) + content[8:]
    if how == 1:
        return _packed(_changed_json(draw, json.dumps(header)), data)
    if how in (2, 3):
        return _packed(json.dumps(_with_metadata(draw, header)), data)
    if how == 4:
        return _packed(json.dumps(header) + " " * draw(st.sampled_from([1, 8, 4096, 1_000_000])), data)
    names = [name for name in header if name != "__metadata__"]
    name = draw(st.sampled_from(names))
    entry = header[name]
    start, end = entry["data_offsets"]
    if how == 5:  # the same name again
        twin = json.dumps(name) + ": " + json.dumps(header[draw(st.sampled_from(names))])
        return _packed(json.dumps(header)[:-1] + ", " + twin + "}", data)
    if how == 6:  # the same bytes as another's
        entry["data_offsets"] = draw(
            st.sampled_from([header[draw(st.sampled_from(names))]["data_offsets"], [end, start], [0, 1 << 62],
                             [-1, 4], [start + 1, end + 1], [0, len(data)], [0], []])
        )  # fmt: skip
        return _packed(json.dumps(header), data)
    if how == 7:
        entry[draw(st.sampled_from(["shape", "dtype"]))] = draw(st.sampled_from([*_SHAPES, *_DTYPES]))
        return _packed(json.dumps(header), data)
    if how == 8:
        filled = _filled(draw, entry["dtype"], data[start:end])
        return _packed(json.dumps(header), data[:start] + filled + data[end:])
    tensors = {key: (h["dtype"], h["shape"], data[slice(*h["data_offsets"])]) for key, h in header.items()
               if key != "__metadata__"}  # fmt: skip
    if how == 9:
        del tensors[name]
    elif how == 10:
        tensors[draw(st.sampled_from(["x", "", "W_enc.weight", name + "2", "é", "a" * 3000]))] = tensors[name]
    else:
        tensors[name] = _resized(draw)
    return packed(header.get("__metadata__"), tensors)


def packed(metadata: Any, tensors: dict[str, tuple[str, list, bytes]]) -> bytes:
    """A safetensors file of (type, shape, bytes) by name."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    data = b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    return _packed(json.dumps(header), data)


def _packed(header: str, data: bytes) -> bytes:
    raw = header.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(raw)) + raw + data


def _resized(draw: Draw) -> tuple[str, list, bytes]:
    """A tensor of another type or shape, whose bytes are there."""
    dtype = draw(st.sampled_from(_DTYPES[:12]))
    shape = draw(
        st.sampled_from([[], [0], [1], [2], [4], [8], [4, 8], [8, 4], [0, 4], [1] * 9, [3, 3], [8, 8]])
    )
    count = 1
    for edge in shape:
        count *= edge
    return (
        dtype,
        shape,
        draw(st.binary(min_size=1, max_size=8)).ljust(8, b"\0") * (count * _SIZES.get(dtype, 1) // 8)
        + b"\0" * (count * _SIZES.get(dtype, 1) % 8),
    )


def _filled(draw: Draw, dtype: str, before: bytes) -> bytes:
    """Bytes of a tensor, all or the first of them another number."""
    if dtype in ("I64", "I32"):
        width, form = (8, "<q") if dtype == "I64" else (4, "<i")
        one = struct.pack(form, draw(st.sampled_from([0, -1, 1, 2, 7, 8, 2**31 - 1, -(2**31)])))
    else:
        width, one = 4, struct.pack("<f", draw(st.sampled_from(_NUMBERS)))
    every = draw(st.booleans())
    size = len(before)
    return (one * (size // width + 1))[:size] if every else (one + before[width:])[:size]


def _with_metadata(draw: Draw, header: dict[str, Any]) -> dict[str, Any]:
    metadata = dict(header.get("__metadata__") or {"format": "pt"})
    key = draw(st.sampled_from(sorted(metadata)))
    how = draw(st.integers(0, 5))
    if how == 0:
        del metadata[key]
    elif how == 1:
        metadata[draw(st.sampled_from(["x", "", "format", "encoder_key", "selection", "run"]))] = metadata[
            key
        ]
    elif how == 2 or metadata[key][:1] not in "{[":
        texts = ["", " ", "-1", "0", "1", "99", "1e3", "٣", "9" * 30, "NaN", "x" * 2_000_000, "\0", "{}", "[]",
                 "../outside/secret", "\u202e", "null", "culture-sae", "culture-enhancer"]  # fmt: skip
        metadata[key] = draw(st.sampled_from(texts))
    else:
        metadata[key] = _changed_json(draw, metadata[key])
    return {**header, "__metadata__": metadata}


def _tokenizer(draw: Draw, content: bytes) -> bytes:
    """A SentencePiece model: fields of protocol buffers, so lengths matter most."""
    return _bytes(draw, content)


def _pickled(draw: Draw, content: bytes) -> bytes:
    """A file of torch.save: a zip; now and then one that would run code."""
    if draw(st.integers(0, 9)) == 0:
        return base64.b64decode("gASVHQAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAJpZJSFlFKULg==")  # os.system("id")
    return _bytes(draw, content)


_KINDS: dict[str, Callable[[Draw, bytes], bytes]] = {
    "json": _json, "jsonl": _jsonl, "yaml": _yaml, "csv": _text, "safetensors": _safetensors,
    "model": _tokenizer, "pt": _pickled, "bin": _pickled,
}  # fmt: skip
