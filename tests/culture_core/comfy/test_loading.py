"""Every published text tower as a CLIP: what it gives is what transformers' or diffusers' own class gives, or
a literal one where neither has it."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import comfy.model_management
import comfy.utils
import pytest
import torch
from comfy.cli_args import args
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from diffusers.pipelines.deprecated.alt_diffusion import modeling_roberta_series
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from culture_core.comfy import ComfyTextEncoder, TextEncoderError, choose_encoders, load_text_encoder
from culture_core.comfy.loading import build_clip
from culture_core.comfy.reading import follow_patcher
from culture_core.comfy.towers import Published
from culture_core.encoders import HFTextEncoder

E5_FOLDER = Path(__file__).parents[3] / "models" / "text_encoders" / "multilingual-e5-small"

PROMPTS = ["a Japanese style house, old bridge", "日本風の急須", "ein Haus", ""]
Publish = Callable[..., Path]
Reference = Callable[[str], nn.Module]


@pytest.fixture(autouse=True)
def _unload() -> object:
    yield
    comfy.model_management.unload_all_models()


def encode(clip: CLIP, text: str) -> tuple[Tensor, Tensor | None]:
    """(context [1, S, c], pooled [1, p]), as CLIP Text Encode gives them."""
    with torch.inference_mode():
        return clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)


def ids_of(clip: CLIP, text: str) -> Tensor:
    (rows,) = clip.tokenize(text).values()
    return torch.tensor([[entry[0] for entry in row] for row in rows])


def mask_of(ids: Tensor, pad: int = 1) -> Tensor:
    return (ids != pad).long()


def expected(kind: str, model: nn.Module, ids: Tensor) -> tuple[Tensor, Tensor | None]:
    """(context, pooled) by the reference's own forward, padded and masked as its makers do."""
    with torch.no_grad():
        mask = mask_of(ids)
        if kind in ("open_clip", "m_clip"):
            return model(ids, mask)
        if kind.startswith("altdiffusion"):
            context = model(ids, attention_mask=mask)[0]  # as AltDiffusionPipeline takes it
            return context, context[:, 0]
        if kind == "siglip2":
            found = model(ids)
            return found.last_hidden_state, found.pooler_output
        if kind in ("mt5", "umt5"):
            mask = mask_of(ids, pad=0)
            return model(ids, attention_mask=mask).last_hidden_state * mask.unsqueeze(-1), None
        found = model(ids, attention_mask=mask)
        if kind == "altclip":
            return found.last_hidden_state, found.pooler_output
        hidden = found.last_hidden_state * mask.unsqueeze(-1)
        return hidden, hidden.sum(dim=1) / mask.sum(dim=1, keepdim=True)


KINDS = [
    "altdiffusion_m9", "altdiffusion_m18", "altclip", "open_clip", "m_clip", "xlm_roberta", "bert", "siglip2",
    "mt5", "umt5",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_tower_gives_what_its_reference_gives(kind: str, publish: Publish, reference: Reference) -> None:
    clip, model = load_text_encoder(publish(kind)), reference(kind)
    for text in PROMPTS:
        context, pooled = encode(clip, text)
        wanted, wanted_pooled = expected(kind, model, ids_of(clip, text))
        torch.testing.assert_close(context, wanted, atol=1e-4, rtol=1e-4)
        assert (pooled is None) == (wanted_pooled is None)
        if pooled is not None:
            torch.testing.assert_close(pooled, wanted_pooled, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["altclip", "open_clip", "mt5", "siglip2"])
def test_a_single_file_is_the_same_as_its_folder(kind: str, publish: Publish, tmp_path: Path) -> None:
    folder = publish(kind)
    single = tmp_path / "anything.safetensors"
    weights = load_file(folder / "model.safetensors")
    vocabulary = next(folder.glob("*.model")).read_bytes()
    inside = torch.frombuffer(bytearray(vocabulary), dtype=torch.uint8)
    save_file(weights | {"spiece_model": inside}, single)
    (context, pooled), (wanted, wanted_pooled) = (
        encode(load_text_encoder(path), PROMPTS[0]) for path in (single, folder)
    )
    assert torch.equal(context, wanted)
    assert pooled is wanted_pooled or torch.equal(pooled, wanted_pooled)


def test_the_full_altclip_model_and_pipeline_folders_load_as_well(publish: Publish, tmp_path: Path) -> None:
    folder = publish("altclip")
    wanted, _ = encode(load_text_encoder(folder), PROMPTS[0])
    weights = load_file(folder / "model.safetensors")
    whole = {f"text_model.{name}": weight for name, weight in weights.items()}
    whole["vision_model.embeddings.class_embedding"] = torch.zeros(3)
    whole["text_projection.weight"] = torch.zeros(5, 96)
    save_file(whole, folder / "model.safetensors")
    assert torch.equal(encode(load_text_encoder(folder), PROMPTS[0])[0], wanted)

    pipeline = tmp_path / "pipeline"
    for part, names in {
        "text_encoder": ("config.json", "model.safetensors"),
        "tokenizer": ("*.model",),
    }.items():
        (pipeline / part).mkdir(parents=True)
        for name in names:
            for file in folder.glob(name):
                (pipeline / part / file.name).write_bytes(file.read_bytes())
    assert torch.equal(encode(load_text_encoder(pipeline), PROMPTS[0])[0], wanted)


# --------------------------------------------------------------------------------------------------- adapter


@pytest.mark.parametrize("kind", ["open_clip", "mt5", "siglip2"])
def test_an_adapter_in_the_towers_file_gives_context_and_pooled(
    kind: str, publish: Publish, reference: Reference, pea: nn.Module
) -> None:
    clip, model = load_text_encoder(publish(kind, adapter=True)), reference(kind)
    for text in PROMPTS:
        context, pooled = encode(clip, text)
        ids = ids_of(clip, text)
        with torch.no_grad():
            if kind == "mt5":
                tokens = model(ids, attention_mask=mask_of(ids, pad=0)).last_hidden_state
            else:
                tokens = expected(kind, model, ids)[0]
            wanted, wanted_pooled = pea(tokens)
        torch.testing.assert_close(context, wanted, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(pooled, wanted_pooled, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prefix", ["", "proj.", "module."])
def test_an_adapter_of_its_own_serves_a_tower(
    prefix: str, publish: Publish, pea: nn.Module, published: ModuleType, tmp_path: Path
) -> None:
    file = tmp_path / "adapter.safetensors"
    save_file({prefix + name: weight for name, weight in published.weights_of(pea).items()}, file)
    clip = load_text_encoder(publish("open_clip"), file)
    wanted = load_text_encoder(publish("open_clip", adapter=True))
    for found, expectation in zip(encode(clip, PROMPTS[0]), encode(wanted, PROMPTS[0]), strict=True):
        assert torch.equal(found, expectation)


def test_a_chosen_adapter_goes_before_the_towers_own(
    publish: Publish, reference: Reference, published: ModuleType, tmp_path: Path
) -> None:
    """And an adapter for SD 1.x has no last layer."""
    torch.manual_seed(3)
    other = published.Pea(hidden=48, pooled=76, context=None)
    save_file(published.weights_of(other), tmp_path / "other.safetensors")
    clip = load_text_encoder(publish("open_clip", adapter=True), tmp_path / "other.safetensors")
    context, _ = encode(clip, PROMPTS[0])
    with torch.no_grad():
        wanted, _ = other(expected("open_clip", reference("open_clip"), ids_of(clip, PROMPTS[0]))[0])
    torch.testing.assert_close(context, wanted, atol=1e-4, rtol=1e-4)


def test_an_adapter_behind_altclip_takes_its_projection(
    publish: Publish, reference: Reference, published: ModuleType, tmp_path: Path
) -> None:
    adapter = published.Pea(width=published.CONTEXT)
    save_file(published.weights_of(adapter), tmp_path / "adapter.safetensors")
    clip = load_text_encoder(publish("altclip"), tmp_path / "adapter.safetensors")
    context, pooled = encode(clip, PROMPTS[0])
    with torch.no_grad():
        wanted = adapter(expected("altclip", reference("altclip"), ids_of(clip, PROMPTS[0]))[0])
    torch.testing.assert_close(context, wanted[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(pooled, wanted[1], atol=1e-4, rtol=1e-4)


def test_an_adapter_that_does_not_fit_is_refused(
    publish: Publish, published: ModuleType, tmp_path: Path
) -> None:
    file = tmp_path / "adapter.safetensors"
    save_file(published.weights_of(published.Pea(width=64)), file)
    with pytest.raises(TextEncoderError, match="takes vectors of 64 numbers, but .* gives 128"):
        load_text_encoder(publish("open_clip"), file)
    save_file({"unet.weight": torch.zeros(1)}, file)
    with pytest.raises(TextEncoderError, match=r"no PEA adapter: expected .*layernorm.*found unet\.weight"):
        load_text_encoder(publish("open_clip"), file)
    broken = published.weights_of(published.Pea())
    broken["projector.2.weight"] = torch.zeros(3, 5)
    save_file(broken, file)
    with pytest.raises(TextEncoderError, match=r"projector\.2 has the shape \(3, 5\), expected \(…, 64\)"):
        load_text_encoder(publish("open_clip"), file)


# ------------------------------------------------------------------------------- one tower for many adapters


@pytest.fixture
def adapters(published: ModuleType, tmp_path: Path) -> dict[str, Path]:
    """Two adapters for a tower 128 wide; and None, the tower without one."""
    files: dict[str, Path | None] = {"plain": None}
    for seed, context in ((1, 112), (2, 76)):
        torch.manual_seed(seed)
        files[f"to {context}"] = tmp_path / f"adapter-{context}.safetensors"
        save_file(published.weights_of(published.Pea(context=context)), files[f"to {context}"])
    return files


def memory_of(clip: CLIP) -> set[int]:
    """Where the weights of a CLIP lie."""
    return {part.untyped_storage().data_ptr() for part in clip.cond_stage_model.parameters()}


@pytest.mark.parametrize("kind", ["xlm_roberta", "bert", "mt5"])
def test_clips_of_one_tower_share_its_weights_and_each_gives_its_own(
    kind: str, publish: Publish, adapters: dict, published: ModuleType
) -> None:
    """In any order, also through clones; padding and chunks too are each its own."""
    folder = publish(kind)
    wanted = {}
    for name, file in adapters.items():
        wanted[name] = encode(load_text_encoder(folder, file), PROMPTS[0])
        gc.collect()
    clips = {name: load_text_encoder(folder, file) for name, file in adapters.items()}
    assert len({frozenset(memory_of(clip)) for clip in clips.values()}) == 1
    for name in ("to 112", "plain", "to 76", "plain", "to 112", "to 112", "to 76"):
        for clip in (clips[name], clips[name].clone(), ComfyTextEncoder(clips[name]).clip):
            for found, expectation in zip(encode(clip, PROMPTS[0]), wanted[name], strict=True):
                assert found is expectation or torch.equal(found, expectation)
    assert wanted["to 76"][0].shape[1:] == (77, 76)
    assert bool((wanted["plain"][0][0, -1] == 0).all()) and bool(wanted["to 76"][0][0, -1].any())


def test_a_tower_is_read_once_and_goes_with_its_last_clip(publish: Publish, adapters: dict) -> None:
    folder = publish("open_clip")
    clip, other = (load_text_encoder(folder, adapters[name]) for name in ("to 112", "to 76"))
    patched = clip.clone()
    first = encode(patched, PROMPTS[0])[0]
    tower = weakref.ref(clip.cond_stage_model)
    (folder / "model.safetensors").rename(folder / "kept")  # another file is another tower
    with pytest.raises(TextEncoderError, match="lacks model"):
        load_text_encoder(folder)
    (folder / "kept").rename(folder / "model.safetensors")
    assert load_text_encoder(folder).cond_stage_model is tower()
    del clip, other
    assert torch.equal(encode(patched, PROMPTS[0])[0], first)
    del patched
    gc.collect()
    assert tower() is None and not comfy.model_management.current_loaded_models


def test_a_new_file_of_the_name_is_a_new_tower(publish: Publish) -> None:
    folder = publish("open_clip")
    clip = load_text_encoder(folder)
    weights = load_file(folder / "model.safetensors")
    weights["text.transformer.embeddings.LayerNorm.bias"] += 1
    save_file(weights, folder / "model.safetensors")
    assert not torch.equal(encode(load_text_encoder(folder), "a")[0], encode(clip, "a")[0])


def test_adapters_stay_right_through_unloading_low_memory_and_weight_patches(
    publish: Publish, adapters: dict
) -> None:
    folder = publish("open_clip")
    clips = {name: load_text_encoder(folder, file) for name, file in adapters.items()}
    wanted = {name: encode(clip, PROMPTS[0])[0] for name, clip in clips.items()}
    size = comfy.model_management.module_size(clips["plain"].cond_stage_model)
    assert len(comfy.model_management.current_loaded_models) == 1
    for name, clip in clips.items():
        assert clip.patcher.model_size() == size
        comfy.model_management.unload_all_models()
        assert clip.cond_stage_model.model_loaded_weight_memory == 0
        with torch.inference_mode():
            clip.patcher.partially_load(torch.device("cpu"), extra_memory=1)
            assert clip.patcher.model.model_lowvram
            found = clip.cond_stage_model.encode_token_weights(clip.tokenize(PROMPTS[0]))[0]
        clip.patcher.detach()
        torch.testing.assert_close(found, wanted[name], atol=1e-5, rtol=1e-5)
    head = next(iter(ComfyTextEncoder(clips["plain"]).model.children())).head
    assert head.chosen is None  # nothing of an adapter is left on the tower
    patched = clips["to 76"].clone()
    key = "xlm_roberta.transformer.bert.encoder.layer.1.attention.self.query.weight"
    change = torch.randn(128, 128, generator=torch.Generator().manual_seed(1))
    assert patched.add_patches({key: ("diff", (change,))}) == [key]
    assert not torch.allclose(encode(patched, PROMPTS[0])[0], wanted["to 76"], atol=0.01)
    for name, clip in clips.items():
        assert torch.equal(encode(clip, PROMPTS[0])[0], wanted[name])


def test_an_adapter_that_lacks_weights_is_refused(publish: Publish, adapters: dict) -> None:
    weights = load_file(adapters["to 76"])
    del weights["layernorm.bias"]
    save_file(weights, adapters["to 76"])
    with pytest.raises(TextEncoderError, match=r"(?s)no whole PEA adapter.*layernorm\.bias"):
        load_text_encoder(publish("open_clip"), adapters["to 76"])


# ------------------------------------------------------------------------------------- float8 with scales


def scaled(weights: dict[str, Tensor], names: tuple[str, str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights with every matrix but embeddings in float8 with a scale, and what they stand for."""
    found, meant = {names[0]: torch.zeros(2, dtype=torch.float8_e4m3fn)}, {}
    for name, weight in weights.items():
        found[name] = meant[name] = weight
        if weight.ndim == 2 and not any(word in name for word in ("embed", "shared", "bias")):
            scale = weight.abs().max() / 448
            found[name] = (weight / scale).to(torch.float8_e4m3fn)
            layer = name.removesuffix(".weight")
            found |= {f"{layer}.{names[1]}": scale, f"{layer}.scale_input": torch.ones(())}
            meant[name] = found[name].float() * scale
    return found, meant


@pytest.mark.parametrize("names", [("scaled_fp8", "scale_weight"), ("a.comfy_quant", "weight_scale")])
@pytest.mark.parametrize("kind", ["altdiffusion_m18", "open_clip", "siglip2", "mt5"])
def test_scaled_float8_is_what_it_stands_for(kind: str, names: tuple[str, str], publish: Publish) -> None:
    folder = publish(kind, kind == "open_clip")
    file = folder / "model.safetensors"
    found, meant = scaled(load_file(file), names)
    save_file(meant, file)
    exact = load_text_encoder(folder)
    wanted = encode(exact, PROMPTS[0])
    save_file(found, file)
    clip = load_text_encoder(folder)
    kinds = {name: part.dtype for name, part in clip.cond_stage_model.named_parameters()}
    matrices = [name for name in kinds if f"{name.removesuffix('weight')}scale_weight" in kinds]
    assert len(matrices) > 20 and {kinds[name] for name in matrices} == {torch.float8_e4m3fn}
    assert {kind for name, kind in kinds.items() if name not in matrices} == {torch.float32}
    before = encode(clip, PROMPTS[0])
    for one, other in zip(before, wanted, strict=True):
        assert one is other or torch.allclose(one, other, atol=1e-4, rtol=1e-4)
    check_patches(clip, exact, next(name for name in matrices if ".1." in name))
    assert torch.equal(encode(clip, PROMPTS[0])[0], before[0])


def check_patches(clip: CLIP, exact: CLIP, key: str) -> None:
    """A patch changes the matrix that is meant, also where memory is short; both round to float8 alike."""
    matrix = dict(exact.cond_stage_model.named_parameters())[key]
    patched = clip.clone()
    assert patched.add_patches({key: ("diff", (-0.25 * matrix,))}) == [key]
    moved = encode(patched, PROMPTS[0])[0]
    layer = comfy.utils.get_attr(patched.cond_stage_model, key.removesuffix(".weight"))
    found = layer.weight.float() * layer.scale_weight
    torch.testing.assert_close(found, 0.75 * matrix, rtol=1 / 8, atol=float(layer.scale_weight) / 256)
    again = encode_where_memory_is_short(patched)
    torch.testing.assert_close(again, moved, atol=1e-4, rtol=1e-4)


def encode_where_memory_is_short(patched: CLIP) -> Tensor:
    """The first prompt's context, by a tower of which nothing is loaded ahead."""
    with torch.inference_mode():
        # Twice: newer versions of ComfyUI leave patches out of the first such load after a whole one, in
        # their own encoders too.
        for _ in range(2):
            patched.patcher.detach()
            patched.patcher.load(torch.device("cpu"), lowvram_model_memory=1)
        assert patched.patcher.model.model_lowvram
        found = patched.cond_stage_model.encode_token_weights(patched.tokenize(PROMPTS[0]))[0]
    patched.patcher.detach()
    return found


def test_an_adapter_in_scaled_float8_serves_a_tower(publish: Publish, adapters: dict) -> None:
    folder, file = publish("open_clip"), adapters["to 76"]
    found, meant = scaled(load_file(file), ("scaled_fp8", "scale_weight"))
    save_file(meant, file)
    wanted = encode(load_text_encoder(folder, file), PROMPTS[0])
    save_file(found, file)
    for one, other in zip(encode(load_text_encoder(folder, file), PROMPTS[0]), wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_other_quantisations_are_refused(publish: Publish) -> None:
    folder = publish("altclip")
    file = folder / "model.safetensors"
    weights = load_file(file)
    key = "roberta.encoder.layer.0.output.dense"
    matrix = weights[f"{key}.weight"]
    rows, float8 = torch.ones(len(matrix)), matrix.to(torch.float8_e4m3fn)
    for change, found in (
        ({f"{key}.weight": matrix.to(torch.int8), f"{key}.SCB": rows}, "torch.int8"),
        ({f"{key}.weight": float8, f"{key}.scale_weight": rows}, r"\(128,\)"),
        ({f"{key}.scale_weight": torch.ones(())}, "torch.float32"),
    ):
        save_file(weights | change, file)
        with pytest.raises(
            TextEncoderError, match=f"quantised in a way .* expected float8 .* found .*{found}"
        ):
            load_text_encoder(folder)


def test_weights_that_the_architecture_does_not_have_are_refused(publish: Publish) -> None:
    """They would be left out in silence: positions within attention, for one."""
    folder = publish("bert")
    weights = load_file(folder / "model.safetensors")
    extra = {"encoder.layer.0.attention.self.distance_embedding.weight": torch.zeros(9, 64)}
    save_file(weights | extra, folder / "model.safetensors")
    with pytest.raises(TextEncoderError, match="bert has no weights .*distance_embedding"):
        load_text_encoder(folder)


def test_what_comfyui_saved_of_a_tower_with_a_head_is_refused(publish: Publish, tmp_path: Path) -> None:
    """Not taken for a plain trunk."""
    state = load_text_encoder(publish("altclip")).get_sd()
    save_file({name: part.clone() for name, part in state.items()}, tmp_path / "saved.safetensors")
    with pytest.raises(TextEncoderError, match=r"saved by ComfyUI.*found 'xlm_roberta\.transformer\.head"):
        load_text_encoder(tmp_path / "saved.safetensors")


# --------------------------------------------------------------------------- as ComfyUI's own encoders behave


@pytest.mark.parametrize("kind", ["altdiffusion_m18", "open_clip"])
def test_prompt_weights_and_long_prompts_work_as_with_stock_encoders(
    kind: str, publish: Publish, reference: Reference
) -> None:
    clip, model = load_text_encoder(publish(kind, kind == "open_clip")), reference(kind)
    long = " ".join(["old bridge"] * 60)
    context, _ = encode(clip, long)
    rows = ids_of(clip, long)
    assert len(rows) > 1 and rows.shape[1] == 77 and context.shape[1] == rows.numel()
    if kind == "altdiffusion_m18":
        wanted = torch.cat(list(expected(kind, model, rows)[0])).unsqueeze(0)
        torch.testing.assert_close(context, wanted, atol=1e-4, rtol=1e-4)
    weighted, empty = encode(clip, "(house:1.5)")[0], encode(clip, "")[0]
    plain = encode(clip, "house")[0]
    marks = mask_of(ids_of(clip, "house")).bool()[0]
    marks[[0, int(marks.sum()) - 1]] = False  # begin and end
    wanted = torch.where(marks[:, None], (plain - empty) * 1.5 + empty, plain)
    torch.testing.assert_close(weighted, wanted, atol=1e-5, rtol=1e-5)


def test_clip_skip_takes_an_earlier_layer(publish: Publish, reference: Reference) -> None:
    clip, model = load_text_encoder(publish("altclip")), reference("altclip")
    skipped = clip.clone()
    skipped.clip_layer(-3)
    ids = ids_of(clip, PROMPTS[0])
    with torch.no_grad():
        hidden = model(ids, attention_mask=mask_of(ids), output_hidden_states=True).hidden_states[-3]
        wanted = model.transformation(model.pre_LN(hidden))
    torch.testing.assert_close(encode(skipped, PROMPTS[0])[0], wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["altdiffusion_m18", "open_clip", "siglip2", "mt5"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_files_of_lower_precision_stay_so_and_compute_in_float32(
    kind: str, dtype: torch.dtype, publish: Publish
) -> None:
    folder = publish(kind, kind == "open_clip")
    exact, _ = encode(load_text_encoder(folder), PROMPTS[0])
    weights = load_file(folder / "model.safetensors")
    save_file({name: weight.to(dtype) for name, weight in weights.items()}, folder / "model.safetensors")
    clip = load_text_encoder(folder)
    transformer = next(iter(ComfyTextEncoder(clip).model.children()))
    assert {weight.dtype for weight in transformer.parameters()} == {dtype}
    found, _ = encode(clip, PROMPTS[0])
    assert found.dtype == torch.float32
    error = float((found - exact).norm() / exact.norm())
    assert error < {torch.float16: 0.01, torch.bfloat16: 0.1, torch.float8_e4m3fn: 0.9}[dtype]


def test_a_precision_that_the_user_asked_comfyui_for_is_used(
    publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(args, "bf16_text_enc", True)
    clip = load_text_encoder(publish("altclip"))
    assert ComfyTextEncoder(clip).embedding_weight().dtype == torch.bfloat16


LORA_KEYS = {
    "altdiffusion_m18": "xlm_roberta.transformer.bert.encoder.layer.1.attention.self.query.weight",
    "open_clip": "xlm_roberta.transformer.head.adapter.fc.weight",
    "siglip2": "siglip.transformer.text_model.encoder.layers.1.self_attn.q_proj.weight",
}


@pytest.mark.parametrize("kind", LORA_KEYS)
def test_weight_patches_act_in_a_clone_and_when_memory_is_short(kind: str, publish: Publish) -> None:
    clip = load_text_encoder(publish(kind, kind == "open_clip"))
    before = encode(clip, PROMPTS[0])[0]
    patched = clip.clone()
    shape = comfy.utils.get_attr(clip.cond_stage_model, LORA_KEYS[kind]).shape
    change = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    assert patched.add_patches({LORA_KEYS[kind]: ("diff", (change,))}) == [LORA_KEYS[kind]]
    after = encode(patched, PROMPTS[0])[0]
    assert not torch.allclose(after, before, atol=0.01)
    assert torch.equal(encode(clip, PROMPTS[0])[0], before)

    clip.patcher.detach()
    found = encode_where_memory_is_short(patched)
    torch.testing.assert_close(found, after, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(
    not hasattr(ModelPatcher, "deepclone_multigpu"), reason="this ComfyUI makes no copies for other devices"
)
@pytest.mark.parametrize("adapted", [False, True])
def test_a_copy_for_another_device_gives_the_same_and_shares_no_weights(
    adapted: bool, publish: Publish, adapters: dict
) -> None:
    """What the node Select CLIP Device makes."""
    clip = load_text_encoder(publish("open_clip"), adapters["to 76"] if adapted else None)
    before = encode(clip, PROMPTS[0])
    moved = clip.clone()
    moved.patcher = clip.patcher.deepclone_multigpu(torch.device("cpu"))
    assert moved.patcher.model is not clip.cond_stage_model
    follow_patcher(moved)
    for one, other in zip(encode(moved, PROMPTS[0]), before, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(encode(clip, PROMPTS[0]), before, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["xlm_roberta", "bert"])
def test_a_trunk_is_the_librarys_encoder_of_the_same_weights(
    kind: str, publish: Publish, reference: Reference
) -> None:
    """Family, fingerprint, tokens and conditioning: a file made with one serves the other."""
    import transformers

    folder = publish(kind)
    own = ComfyTextEncoder(load_text_encoder(folder))
    tokenizer = transformers.XLMRobertaTokenizer(str(folder / "sentencepiece.bpe.model"))
    theirs = HFTextEncoder(reference(kind), tokenizer)
    assert own.fingerprint() == theirs.fingerprint()
    assert own.info == theirs.info
    texts = [text for text in PROMPTS if text]
    with torch.inference_mode():
        tokens = own.tokenize(texts)
        assert torch.equal(tokens.ids, theirs.tokenize(texts).ids)
        found, wanted = own.encode(tokens), theirs.encode(tokens)
    torch.testing.assert_close(found.hidden, wanted.hidden, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.pooled, wanted.pooled, atol=1e-4, rtol=1e-4)


def test_mt5_is_the_librarys_encoder_of_the_same_weights(publish: Publish, reference: Reference) -> None:
    import transformers

    folder = publish("mt5")
    own = ComfyTextEncoder(load_text_encoder(folder))
    tokenizer = transformers.T5Tokenizer(str(folder / "spiece.model"), extra_ids=0, legacy=False)
    theirs = HFTextEncoder(reference("mt5"), tokenizer)
    assert own.fingerprint() == theirs.fingerprint() and own.info == theirs.info


def test_the_choice_of_encoders_knows_a_tower_by_its_name(publish: Publish) -> None:
    assert choose_encoders(load_text_encoder(publish("altclip"))) == ["xlm_roberta"]


# ---------------------------------------------------------------------------------------------- true shapes


@pytest.fixture(scope="module")
def large(published: ModuleType) -> nn.Module:
    """diffusers' text model in the shapes of BAAI/AltDiffusion-m18. Its weights are windows of one row of
    random numbers, which costs nothing to draw."""
    kind = modeling_roberta_series
    config = published.xlm_roberta_config(
        kind.RobertaSeriesConfig, vocab_size=250002, hidden_size=1024, num_attention_heads=16,
        intermediate_size=4096, num_hidden_layers=24, max_position_embeddings=514, project_dim=768,
        has_pre_transformation=True,
    )  # fmt: skip
    with torch.device("meta"):
        model = kind.RobertaSeriesModelWithTransformation(config).eval()
    noise = torch.randn(5_000_000, generator=torch.Generator().manual_seed(0))
    for number, (name, parameter) in enumerate(list(model.named_parameters())):
        shape = parameter.shape
        strides = (1, 1) if shape[0] > 100_000 else parameter.stride()
        values = noise[number * 1000 :].as_strided(shape, strides)
        if parameter.ndim == 1:
            values = 0.02 * values + name.endswith(("LayerNorm.weight", "pre_LN.weight"))
        elif shape[0] <= 100_000:
            values = 1.2 * shape[1] ** -0.5 * values
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, nn.Parameter(values, requires_grad=False))
    embeddings = model.roberta.embeddings
    embeddings.register_buffer("position_ids", torch.arange(514)[None], persistent=False)
    embeddings.register_buffer("token_type_ids", torch.zeros(1, 514).long(), persistent=False)
    return model


def test_true_shapes_agree_with_the_reference(large: nn.Module, published: ModuleType) -> None:
    """AltDiffusion-m18, and on the same XLM-R-large, under open_clip's names, PEA-Diffusion."""
    weights = dict(large.named_parameters())
    torch.manual_seed(0)
    pea = published.Pea(width=1024, hidden=1024, pooled=1280, context=2048)
    tower = {
        name.replace("roberta.", "text.transformer."): weight
        for name, weight in weights.items()
        if name.startswith("roberta.")
    } | published.weights_of(pea)
    found = {}
    for name, state in (("m18", weights), ("pea", tower)):
        clip = build_clip(Published(Path(name), state, {}, (E5_FOLDER,)))
        ids = ids_of(clip, PROMPTS[0])
        found[name] = encode(clip, PROMPTS[0])
        del clip
        gc.collect()
    with torch.no_grad():
        wanted = large(ids, attention_mask=mask_of(ids))
        context, pooled = pea(wanted.last_hidden_state)
    assert found["m18"][0].shape == (1, 77, 768)
    assert found["pea"][0].shape == (1, 77, 2048) and found["pea"][1].shape == (1, 1280)
    torch.testing.assert_close(found["m18"][0], wanted.projection_state, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found["pea"][0], context, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found["pea"][1], pooled, atol=1e-4, rtol=1e-4)
