"""A checkpoint loads exactly or not at all, whoever saved it and whatever it is called."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from checkpoint_folders import shard, to_old_processor
from PIL import Image
from safetensors.torch import load_file, save_file

from open_r1.checkpoints.families import FAMILIES, forbidden_token_ids
from open_r1.checkpoints.folder import fingerprint, read_family
from open_r1.checkpoints.loading import attention_or_fallback, load_model, resolve_dtype, torch_dtype
from open_r1.checkpoints.processors import load_processor
from open_r1.common.errors import UserError

VISION = ("qwen2_vl", "qwen2_5_vl")


def rename(folder: Path, rule) -> list[str]:
    """Rewrite the weights under other names; a name that becomes None is left out."""
    weights = load_file(folder / "model.safetensors")
    renamed = {rule(name): tensor for name, tensor in weights.items() if rule(name) is not None}
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    return sorted(renamed)


def to_old(name: str) -> str:
    """Layout of transformers before 4.52."""
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def to_new(name: str) -> str:
    """Layout of transformers from 4.52 on."""
    name = to_old(name)
    if name.startswith("visual."):
        return f"model.{name}"
    return name.replace("model.", "model.language_model.", 1)


def to_flat_config(folder: Path) -> None:
    """config.json as transformers 4.49 wrote it: the text settings at the top, rope as `rope_scaling`."""
    config = json.loads((folder / "config.json").read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    for key in ("model_type", "layer_types", "dtype"):
        text.pop(key, None)
    config.pop("dtype", None)
    flat = text | config
    flat["rope_theta"] = rope["rope_theta"]
    flat["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    flat |= {"torch_dtype": "float32", "transformers_version": "4.49.0"}
    (folder / "config.json").write_text(json.dumps(flat))


def logits(folder: Path) -> torch.Tensor:
    """The model's logits for one image and a question: every weight of it has a part in them."""
    model, processor = load_model(folder, dtype=torch.float32), load_processor(folder)
    image = Image.linear_gradient("L").resize((120, 90)).convert("RGB")
    content = [{"type": "image"}, {"type": "text", "text": "What is shown? A)CT, B)MRI"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    with torch.no_grad():
        return model(**processor(text=[text], images=[image], return_tensors="pt")).logits


@pytest.mark.slow
@pytest.mark.parametrize("family", VISION)
def test_both_key_layouts_give_bit_equal_outputs(copy, family):
    expected = logits(copy(family, "as_saved"))
    old, new = copy(family, "old"), copy(family, "new")
    old_names, new_names = rename(old, to_old), rename(new, to_new)
    assert any(name.startswith("visual.") for name in old_names)
    assert all(name.startswith(("model.visual.", "model.language_model.")) for name in new_names)
    assert torch.equal(logits(old), expected)
    assert torch.equal(logits(new), expected)


@pytest.mark.slow
@pytest.mark.parametrize("family", VISION)
def test_a_checkpoint_saved_by_transformers_4_49_gives_bit_equal_outputs(copy, family):
    expected = logits(copy(family, "as_saved"))
    old = copy(family, "old")
    rename(old, to_old)
    to_flat_config(old)
    to_old_processor(old)
    assert torch.equal(logits(old), expected)


@pytest.mark.parametrize("family", VISION)
@pytest.mark.parametrize("layout", [to_old, to_new])
def test_a_checkpoint_without_its_vision_tower_is_refused(copy, family, layout):
    folder = copy(family)
    rename(folder, layout)
    total = len(load_file(folder / "model.safetensors"))
    remaining = rename(folder, lambda name: None if "visual." in name else name)
    gone = total - len(remaining)
    assert gone > 20
    with pytest.raises(UserError, match=rf"{gone} missing \({gone} of them the vision tower's\): model\.visual\."):
        load_model(folder)


def test_missing_and_unexpected_weights_are_named_and_counted(copy):
    folder = copy()
    rename(folder, lambda name: name.replace("layers.1.mlp", "layers.1.mlq"))
    with pytest.raises(UserError) as error:
        load_model(folder)
    message = str(error.value)
    assert "3 missing: model.language_model.layers.1.mlp.down_proj.weight" in message
    assert "3 unexpected: model.language_model.layers.1.mlq.down_proj.weight" in message
    assert "\n" not in message


def test_a_weight_of_another_shape_is_refused_with_both_shapes(copy):
    folder = copy()
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.0.mlp.up_proj.weight"))
    rows, columns = weights[name].shape
    weights[name] = weights[name][:-1].clone()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=rf"up_proj\.weight \({rows - 1}, {columns}\) instead of \({rows}, {columns}\)"):
        load_model(folder)


@pytest.mark.slow
def test_tied_and_untied_output_weights(copy):
    tied = load_model(copy(name="tied"))
    assert tied.lm_head.weight.data_ptr() == tied.get_input_embeddings().weight.data_ptr()

    folder = copy(name="untied")  # says that it has output weights of its own, and has none
    config = json.loads((folder / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"1 missing: lm_head\.weight"):
        load_model(folder)

    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = torch.full_like(tied.lm_head.weight, 0.25)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    untied = load_model(folder)
    assert (untied.lm_head.weight == 0.25).all()
    assert not torch.equal(untied.lm_head.weight, untied.get_input_embeddings().weight)


@pytest.mark.parametrize("size", [0, 5, 300, -1], ids=["empty", "no length", "in the header", "one byte short"])
def test_a_truncated_file_is_named(copy, size):
    folder = copy()
    file = folder / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:size])
    with pytest.raises(UserError, match=rf"{file}.*fetch it again"):
        load_model(folder)


def test_a_file_of_noise_is_named(copy):
    folder = copy()
    (folder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0<html>404</html>")
    with pytest.raises(UserError, match=r"model\.safetensors has a damaged header"):
        load_model(folder)


@pytest.mark.slow
def test_sharded_weights_load_and_an_absent_shard_is_named(copy):
    expected = logits(copy(name="whole"))
    folder = copy(name="sharded")
    files = shard(folder)
    assert torch.equal(logits(folder), expected)
    (folder / files[1]).unlink()
    with pytest.raises(UserError, match=r"1 of 2 weight files .* absent \(model-00002-of-00002\.safetensors\)"):
        load_model(folder)


def test_shards_without_an_index_and_with_a_strange_one_are_refused(copy):
    folder = copy()
    files = shard(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../" + files[0]}}))
    with pytest.raises(UserError, match="no safetensors file beside it"):
        load_model(folder)
    index.unlink()
    with pytest.raises(UserError, match=r"shards but no model\.safetensors\.index\.json"):
        load_model(folder)


def test_whole_weights_beside_an_index_are_refused(copy):
    folder = copy()
    shutil.copy(folder / "model.safetensors", folder / "kept")
    shard(folder)
    (folder / "kept").rename(folder / "model.safetensors")
    with pytest.raises(UserError, match="not clear which weights are meant"):
        load_model(folder)


def test_pickled_weights_are_refused_with_the_remedy(copy):
    folder = copy()
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"only as pytorch_model\.bin: a pickle can run any code.*safetensors copy"):
        load_model(folder)


def test_the_class_comes_from_model_type_and_not_from_the_name(copy):
    misleading = copy("qwen2_vl", "Qwen2.5-VL-3B-Instruct")
    assert type(load_model(misleading)).__name__ == "Qwen2VLForConditionalGeneration"
    assert type(load_model(copy("qwen2", "Qwen2-VL-2B"))).__name__ == "Qwen2ForCausalLM"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model_type": "vit"}', "model_type 'vit', for which transformers builds no causal language model"),
        ('{"model_type": "llava"}', "describes a model of 7,062,902,784 weights, and the files have"),
        ("{}", "model_type None"),
        ('{"model_type"', "is no JSON"),
        ("[]", "holds a list"),
    ],
)
def test_a_strange_config_is_refused(copy, content, message):
    folder = copy()
    (folder / "config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        load_model(folder)


def test_a_quantised_checkpoint_is_refused(copy):
    folder = copy()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(UserError, match=r"quantised \(awq\)"):
        load_model(folder)


@pytest.mark.slow
def test_a_lora_adapter_is_merged_into_its_base(copy, tmp_path):
    import peft

    base = copy()
    rules = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(load_model(base), rules)
    adapted.save_pretrained(tmp_path / "adapter")
    merged = load_model(tmp_path / "adapter")
    wanted = adapted.merge_and_unload().state_dict()
    changed = [n for n, w in load_model(base).state_dict().items() if not torch.equal(w, merged.state_dict()[n])]
    assert all(torch.equal(weight, wanted[name]) for name, weight in merged.state_dict().items())
    assert changed
    assert all(("q_proj" in name or "v_proj" in name) for name in changed)
    assert load_processor(tmp_path / "adapter").image_processor is not None  # the base's
    assert fingerprint(tmp_path / "adapter") != fingerprint(base)

    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    saved = dict(list(stored.items())[1:])
    save_file(saved, tmp_path / "adapter" / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"1 tensors of the adapter .* do not match"):
        load_model(tmp_path / "adapter")


# --- dtype, attention, tokens ----------------------------------------------------------------------------------------


def test_dtype_is_float32_without_a_gpu_unless_asked_for(tiny):
    assert resolve_dtype("auto", "cpu") == torch.float32
    assert load_model(tiny["qwen2"], device="cpu").dtype == torch.float32
    assert load_model(tiny["qwen2"], dtype="bfloat16").dtype == torch.bfloat16
    assert torch_dtype(None) == torch_dtype("auto") == "auto"
    assert torch_dtype("float16") == torch.float16
    with pytest.raises(UserError, match="the dtype 'int8' is not supported; choose one of auto, float32"):
        torch_dtype("int8")


def test_flash_attention_that_cannot_be_had_becomes_sdpa_with_one_line(tiny, capsys, monkeypatch):
    assert attention_or_fallback(None) == ("sdpa", None)
    assert attention_or_fallback("eager") == ("eager", None)
    chosen, note = attention_or_fallback("flash_attention_2", "cpu")
    assert chosen == "sdpa"
    assert (
        note == "flash_attention_2: it needs a GPU and none is used here; using sdpa instead, which computes the same"
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "flash_attn", None)  # importing it raises ImportError
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    chosen, note = attention_or_fallback("flash_attention_2")
    assert chosen == "sdpa"
    assert "not installed (`bash setup.sh --gpu`" in str(note)
    monkeypatch.setitem(sys.modules, "flash_attn.cute", None)
    chosen, note = attention_or_fallback("flash_attention_4")
    assert chosen == "sdpa"
    assert "flash_attn.cute is not installed (`pip install flash-attn-4" in str(note)
    monkeypatch.undo()
    model = load_model(tiny["qwen2_5_vl"], attn_implementation="flash_attention_2", device="cpu")
    assert model.config._attn_implementation == "sdpa"
    assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(UserError, match="no attention implementation 'flash'"):
        attention_or_fallback("flash")


@pytest.mark.slow
def test_image_tokens_are_forbidden_in_both_families_and_none_in_text(tiny):
    for family in VISION:
        model, tokenizer = load_model(tiny[family]), load_processor(tiny[family]).tokenizer
        names = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
        assert forbidden_token_ids(model.config) == sorted(tokenizer.convert_tokens_to_ids(names))
    assert forbidden_token_ids(load_model(tiny["qwen2"]).config) == []


@pytest.mark.slow
def test_families_know_vision_and_positions(tiny):
    assert [read_family(tiny[name]).has_vision for name in FAMILIES] == [True, True, True, False, True]
    for name, family in FAMILIES.items():
        model = load_model(tiny[name])
        assert family.has_vision == (hasattr(model.model, "visual") or hasattr(model.model, "vision_tower"))
