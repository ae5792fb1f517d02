"""What a text tower is, told from the keys and shapes of its weights.

| keys | trunk |
| --- | --- |
| `embeddings.word_embeddings`, one token type | XLM-R |
| `embeddings.word_embeddings`, two token types | BERT |
| `text_model.embeddings.token_embedding` and `text_model.head` | SigLIP |
| `encoder.block.0.layer.0.SelfAttention` | T5, mT5, UMT5 |

| keys beside a BERT or XLM-R | head |
| --- | --- |
| `transformation_pre`, `pre_LN` | AltDiffusion-m18: Linear(LayerNorm(last layer but one)) |
| `transformation`, perhaps `pre_LN` | AltCLIP, AltDiffusion-m9: Linear(LayerNorm(last)), or Linear(last) |
| `proj.0`, `proj.2`, or `proj` | open_clip: context as it is; the mean goes through the projection |
| `LinearTransformation` | M-CLIP: the same |
| `text_projection` | transformers' dual encoder: the first token's, through its pooler where it has one |
| `layernorm`, `projector.0` … | PEA adapter, behind any of them |
"""

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ...embedded_encoder import MAX_LENGTH
from ..errors import TextEncoderError
from .files import Published
from .heads import HeadConfig, adapter_weights, shapes_of
from .modules import BertTower, SiglipTower, T5Tower, XlmRobertaTower
from .scaled import SCALE

_BERT = "embeddings.word_embeddings.weight"
_SIGLIP = "text_model.embeddings.token_embedding.weight"
_T5 = "encoder.block.0.layer.0.SelfAttention.q.weight"
CHUNK = 77
"""Tokens in a chunk, of all but BERT and SigLIP."""
_HEAD_WIDTH = 64
"""Of attention, where no config.json says how many heads there are."""


class Tower(NamedTuple):
    """A text tower as ComfyUI is to build it."""

    name: str
    """Of the encoder in the CLIP."""
    transformer: Any
    """A class of `modules`."""
    config: dict[str, Any]
    weights: dict[str, Tensor]
    """Under the names of `transformer`."""
    length: int = CHUNK
    """Tokens in a chunk."""
    masked: bool = True
    """Whether padding is hidden from attention."""
    zero_padding: bool = False
    """Whether padding's context is zero."""
    layer: int | None = None
    """From which the context is taken, from the end; None: the last."""

    @property
    def width(self) -> int:
        """Of the trunk."""
        return self.config.get("hidden_size") or self.config["d_model"]

    @property
    def vocabulary(self) -> int:
        """Number of token embeddings."""
        return self.config["vocab_size"]


class _Part(NamedTuple):
    """What a head adds to a trunk."""

    head: HeadConfig
    weights: dict[str, Tensor]
    layer: int | None = None


def detect_tower(published: Published) -> Tower:
    """The tower in a folder or file, with the PEA adapter that it may bring.

    Raises:
        TextEncoderError: for keys that belong to nothing known, shapes that are not those of the config.json,
            or an adapter that does not fit.
    """
    weights = published.weights
    for suffix, build in ((_BERT, _bert), (_SIGLIP, _siglip), (_T5, _t5)):
        first = next((name for name in sorted(weights) if name.endswith(suffix)), None)
        if first is not None:
            tower = build(published, first.removesuffix(suffix))
            _check_positions(tower, published.path)
            return _with_adapter(tower, adapter_weights(weights), published.path)
    some = ", ".join(sorted(weights)[:3])
    raise TextEncoderError(
        f"{published.path} is no text encoder that this loader knows: expected a key that ends in "
        f"'{_BERT}' (BERT, XLM-R, AltDiffusion, multilingual CLIP), '{_SIGLIP}' (SigLIP) or '{_T5}' (T5), "
        f"found {some}."
    )


def _bert(published: Published, prefix: str) -> Tower:
    weights, config = published.weights, published.config
    trunk = {
        f"bert.{name.removeprefix(prefix)}": weight
        for name, weight in weights.items()
        if name.startswith((f"{prefix}embeddings.", f"{prefix}encoder."))
        and not name.endswith(("position_ids", "token_type_ids"))
    }
    words = _shape(trunk, "bert.embeddings.word_embeddings", published)
    types = _shape(trunk, "bert.embeddings.token_type_embeddings", published)[0]
    _check_words(words, published)
    is_roberta = types == 1
    part = _bert_head(published, prefix)
    plain = not part.weights
    sizes = {
        "hidden_size": words[1],
        "vocab_size": words[0],
        "max_position_embeddings": _shape(trunk, "bert.embeddings.position_embeddings", published)[0],
        "type_vocab_size": types,
        "num_hidden_layers": _count(trunk, "bert.encoder.layer."),
        "intermediate_size": _shape(trunk, "bert.encoder.layer.0.intermediate.dense", published)[0],
        # MiniLM's 384 has 12 heads too.
        "num_attention_heads": _heads(config, words[1], 12 if words[1] == 384 else words[1] // _HEAD_WIDTH),
        "pad_token_id": 1 if is_roberta else 0,
        "layer_norm_eps": _eps(config, 1e-5 if is_roberta else 1e-12),
        "head": part.head,
    }
    return Tower(
        name="xlm_roberta" if is_roberta else "bert",
        transformer=XlmRobertaTower if is_roberta else BertTower,
        config=sizes,
        weights=trunk | part.weights,
        length=CHUNK if is_roberta or not plain else MAX_LENGTH,
        zero_padding=plain,
        layer=part.layer,
    )


def _bert_head(published: Published, prefix: str) -> _Part:
    weights = published.weights
    owner = prefix.removesuffix(".").rpartition(".")[0]
    owner += "." if owner else ""

    def has(name: str) -> bool:
        return f"{name}.weight" in weights

    if any(has(f"{owner}head.{name}") for name in ("projection", "pooled.0")):
        raise TextEncoderError(
            f"{published.path} was saved by ComfyUI, under whose names it cannot be told which of several "
            f"models it is: expected published names, found '{owner}head.…'. Load the published file."
        )

    def part(names: dict[str, str], pool: str, activation: str = "gelu", layer: int | None = None) -> _Part:
        found = _renamed(weights, names)
        return _Part(HeadConfig(pool, activation, _shapes(found)), found, layer)

    if has(f"{owner}transformation_pre"):
        names = {"norm": f"{owner}pre_LN", "projection": f"{owner}transformation_pre"}
        return part(names, "first", layer=-2)
    if has(f"{owner}transformation"):
        names = {"projection": f"{owner}transformation"}
        # diffusers' class of this name does without the norm, also where the file has one.
        if "RobertaSeriesModelWithTransformation" not in str(published.config.get("architectures")):
            names["norm"] = f"{owner}pre_LN"
        return part(names, "first")
    if has(f"{owner}proj.0"):
        return part({"pooled.0": f"{owner}proj.0", "pooled.2": f"{owner}proj.2"}, "mean")
    if has(f"{owner}text_projection"):
        if has(f"{prefix}pooler.dense"):
            names = {"pooled.0": f"{prefix}pooler.dense", "pooled.2": f"{owner}text_projection"}
            return part(names, "first", "tanh")
        return part({"pooled.0": f"{owner}text_projection"}, "first")
    for name in ("proj", "LinearTransformation"):
        if has(owner + name):
            return part({"pooled.0": owner + name}, "mean")
    return _Part(HeadConfig(), {})


def _renamed(weights: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """The weights of a head; `names`: this pack's name of a layer -> the file's."""
    return {
        f"head.{new}.{kind}": weights[f"{old}.{kind}"]
        for new, old in names.items()
        for kind in ("weight", "bias", SCALE)
        if f"{old}.{kind}" in weights
    }


def _siglip(published: Published, prefix: str) -> Tower:
    weights, config = published.weights, published.config
    if f"{prefix}text_model.head.weight" not in weights:
        raise TextEncoderError(
            f"{published.path} looks like a CLIP text encoder: expected SigLIP's key "
            f"'{prefix}text_model.head.weight', found none. ComfyUI's own Load CLIP takes CLIP."
        )
    start = f"{prefix}text_model."
    trunk = {
        f"text_model.{name.removeprefix(start)}": weight
        for name, weight in weights.items()
        if name.startswith(start) and not name.startswith(f"{start}head.") and "position_ids" not in name
    }
    pooled = _renamed(weights, {"pooled.0": f"{start}head"})
    words = _shape(trunk, "text_model.embeddings.token_embedding", published)
    _check_words(words, published)
    positions = _shape(trunk, "text_model.embeddings.position_embedding", published)[0]
    sizes = {
        "hidden_size": words[1],
        "vocab_size": words[0],
        "max_position_embeddings": positions,
        "num_hidden_layers": _count(trunk, "text_model.encoder.layers."),
        "intermediate_size": _shape(trunk, "text_model.encoder.layers.0.mlp.fc1", published)[0],
        # So400m: 1152 in 16 heads.
        "num_attention_heads": _heads(config, words[1], 16 if words[1] == 1152 else words[1] // _HEAD_WIDTH),
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": _eps(config, 1e-6),
        "head": HeadConfig("last", shapes=_shapes(pooled)),
    }
    return Tower("siglip", SiglipTower, sizes, trunk | pooled, length=positions, masked=False)


def _t5(published: Published, prefix: str) -> Tower:
    weights = {
        name.removeprefix(prefix): weight
        for name, weight in published.weights.items()
        if name.startswith((f"{prefix}encoder.", f"{prefix}shared."))
    }
    embedding = weights.pop("encoder.embed_tokens.weight", None)
    if embedding is not None:
        weights.setdefault("shared.weight", embedding)
    words = _shape(weights, "shared", published)
    _check_words(words, published)
    block = "encoder.block.0.layer"
    inner = _shape(weights, f"{block}.0.SelfAttention.q", published)[0]
    heads = _shape(weights, f"{block}.0.SelfAttention.relative_attention_bias", published)[1]
    gated = f"{block}.1.DenseReluDense.wi_0.weight" in weights
    each = "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight" in weights
    sizes = {
        "d_model": words[1],
        "vocab_size": words[0],
        "d_kv": inner // heads,
        "num_heads": heads,
        "num_layers": _count(weights, "encoder.block."),
        "d_ff": _shape(weights, f"{block}.1.DenseReluDense.{'wi_0' if gated else 'wi'}", published)[0],
        "is_gated_act": gated,
        "dense_act_fn": "gelu_pytorch_tanh" if gated else "relu",
        "model_type": "umt5" if each else "t5",
        "head": HeadConfig("none"),
    }
    return Tower("t5", T5Tower, sizes, weights, zero_padding=True)


def for_adapter(tower: Tower, adapter: dict[str, Tensor], path: Path) -> Tower:
    """The tower as a PEA adapter was trained behind it: whole chunks, and what it gives for padding as well.

    Args:
        adapter: weights, see `heads.adapter_weights`.
        path: of the tower.

    Raises:
        TextEncoderError: for an adapter that was trained on another tower.
    """
    wanted = len(adapter["adapter.layernorm.weight"])
    context = tower.config["head"].shapes.get("projection.weight", (tower.width,))[0]
    if wanted != context:
        raise TextEncoderError(
            f"The PEA adapter takes vectors of {wanted} numbers, but {path} gives {context}: use the text "
            "encoder that the adapter was trained on."
        )
    length = tower.length if tower.transformer is SiglipTower else CHUNK
    found = tower._replace(length=length, zero_padding=False)
    _check_positions(found, path)
    return found


def _check_positions(tower: Tower, path: Path) -> None:
    """
    Raises:
        TextEncoderError: for a tower with fewer positions than a chunk has tokens.
    """
    positions = tower.config.get("max_position_embeddings")
    before = tower.config["pad_token_id"] + 1 if tower.transformer is XlmRobertaTower else 0
    if positions is not None and positions < tower.length + before:
        raise TextEncoderError(
            f"{path} has {positions} positions, too few for the {tower.length} tokens of a padded prompt: "
            f"expected {tower.length + before} or more."
        )


def _with_adapter(tower: Tower, adapter: dict[str, Tensor], path: Path) -> Tower:
    if not adapter:
        return tower
    head = tower.config["head"]
    added = {f"head.{name}": weight for name, weight in adapter.items()}
    config = tower.config | {"head": head._replace(shapes=head.shapes | _shapes(added))}
    return for_adapter(tower, adapter, path)._replace(config=config, weights=tower.weights | added)


def _shapes(weights: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return shapes_of(weights, "head.")


def _shape(weights: dict[str, Tensor], name: str, published: Published) -> tuple[int, ...]:
    """Of a matrix.

    Raises:
        TextEncoderError: where it is missing or none.
    """
    weight = weights.get(f"{name}.weight")
    if weight is None or weight.ndim != 2:
        found = "nothing" if weight is None else f"a tensor of {tuple(weight.shape)}"
        raise TextEncoderError(
            f"{published.path}: weights are missing ({name}.weight should be a matrix, found {found}): fetch "
            "it again."
        )
    return tuple(weight.shape)


def _count(weights: dict[str, Tensor], start: str) -> int:
    numbers = {name.removeprefix(start).partition(".")[0] for name in weights if name.startswith(start)}
    return len(numbers)


def _heads(config: dict[str, Any], width: int, usual: int) -> int:
    heads = config.get("num_attention_heads", max(usual, 1))
    if type(heads) is not int or heads < 1 or width % heads:
        raise TextEncoderError(
            f"The config.json names {heads!r:.60} attention heads, which do not divide the width {width}: "
            "fetch the folder again."
        )
    return heads


def _eps(config: dict[str, Any], usual: float) -> float:
    eps = config.get("layer_norm_eps", usual)
    if type(eps) not in (int, float) or not 0 <= eps < 1:
        raise TextEncoderError(
            f"The config.json names {eps!r:.60} as layer_norm_eps, expected a number from 0 to 1: fetch the "
            "folder again."
        )
    return eps


def _check_words(shape: tuple[int, ...], published: Published) -> None:
    config = published.config
    width = config.get("hidden_size", config.get("d_model", shape[1]))
    expected = (config.get("vocab_size", shape[0]), width)
    if shape != expected:
        raise TextEncoderError(
            f"{published.path} is not of its config.json: word embeddings are {shape}, expected {expected}."
        )
