"""A checkpoint that is broken in any way is refused in one line that names the file or the tensor, soon."""

import json
import os
import resource
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from checkpoint_folders import shard, to_old_processor
from safetensors.torch import load_file, save_file

from open_r1.checkpoints.checks import chat_templates
from open_r1.checkpoints.families import FAMILIES
from open_r1.checkpoints.folder import fingerprint
from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.common.atomic_files import staged_folder
from open_r1.common.errors import UserError, run_command
from open_r1_testbed.tiny_models import build_tiny_checkpoint

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny", "qwen2_5_vl", seed=3)


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def change_json(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def refused(folder: Path, action: Callable[[Path], object] = load_model) -> str:
    """The one line that a folder is refused with."""
    with pytest.raises(UserError) as error:
        action(folder)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1500
    return str(error.value)


# --- weights -----------------------------------------------------------------------------------------------------


def test_shards_that_hold_the_same_names_are_refused(folder):
    files = shard(folder)
    first_shard, second = (load_file(folder / file) for file in files)
    stranger = {name: torch.zeros_like(value) for name, value in first_shard.items()}
    save_file(second | stranger, folder / files[1], {"format": "pt"})
    message = refused(folder)
    assert (
        f"{files[1]} holds {len(first_shard) + len(second)} tensors and {INDEX} places {len(second)} there" in message
    )
    assert f"{len(first_shard)} differ, {len(first_shard)} belong into another file" in message
    assert min(first_shard) in message


def test_an_index_that_names_a_few_is_refused(folder):
    files = shard(folder)
    index = json.loads((folder / INDEX).read_text())
    shortened = dict(sorted(index["weight_map"].items())[:4])
    (folder / INDEX).write_text(json.dumps({"weight_map": shortened}))
    assert f"{files[0]} holds" in refused(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": index["weight_map"] | {"model.more": files[0]}}))
    assert "1 differ: model.more" in refused(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_no_number_is_refused_by_name(folder, value):
    weights = load_file(folder / "model.safetensors")
    name = sorted(weights)[7]
    weights[name].view(-1)[-1] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    message = refused(folder)
    assert f"1 tensors of {folder} hold NaN or infinite numbers as torch.float32 (" in message
    assert name.partition("layers.")[2] in message


def test_a_weight_that_is_too_large_for_the_asked_format_is_refused_by_name(folder):
    weights = load_file(folder / "model.safetensors")
    name = sorted(weights)[7]
    weights[name].view(-1)[0] = 1e6  # float16 ends at 65,504
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    load_model(folder, dtype="float32")
    message = refused(folder, lambda path: load_model(path, dtype="float16"))
    assert f"1 tensors of {folder} hold NaN or infinite numbers as torch.float16 (" in message
    assert name.partition("layers.")[2] in message


def test_a_packed_base_with_a_weight_that_is_no_number_is_refused(folder):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (pip install '.[quant]')")
    from transformers import BitsAndBytesConfig

    weights = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(weights) if "up_proj.weight" in name and "visual" not in name)
    weights[name].view(-1)[0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    packed = BitsAndBytesConfig(load_in_4bit=True)
    message = refused(folder, lambda path: load_model(path, dtype="float32", quantization=packed))
    assert name in message


@pytest.mark.slow
def test_an_adapter_with_a_weight_that_is_no_number_is_refused_by_name(tiny, tmp_path):
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    peft.get_peft_model(load_model(tiny), config).save_pretrained(str(tmp_path))
    file = tmp_path / "adapter_model.safetensors"
    weights = load_file(file)
    name = sorted(weights)[0]
    weights[name].view(-1)[0] = float("inf")
    save_file(weights, file, {"format": "pt"})
    assert f"1 tensors of the adapter {tmp_path} hold NaN or infinite numbers ({name})" in refused(tmp_path)


@pytest.mark.parametrize("kind", [torch.int8, torch.int32, torch.float8_e4m3fn])
def test_whole_numbers_without_a_configuration_that_explains_them_are_refused(folder, kind):
    weights = load_file(folder / "model.safetensors")
    name = sorted(weights)[7]
    weights[name] = (weights[name] * 100).to(kind)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    message = refused(folder)
    assert f"holds 1 tensors of {'F8_E4M3' if kind is torch.float8_e4m3fn else str(kind)[6:].upper()[0]}" in message
    assert name in message


@pytest.mark.slow
def test_a_header_of_a_million_tensors_is_refused_before_it_is_read(folder):
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"model.layers.{n}.weight": entry for n in range(1_000_000)}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "far more tensors than any model" in refused(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB; parsed it took 1.2 GiB


# --- configurations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "entry", "value"),
    [
        ("text_config", "num_hidden_layers", 10**9),
        ("text_config", "num_hidden_layers", -1),
        ("text_config", "num_hidden_layers", "two"),
        ("text_config", "num_attention_heads", 0),
        ("text_config", "vocab_size", 10**15),
        ("text_config", "rms_norm_eps", float("nan")),
        ("vision_config", "depth", 10**9),
        ("vision_config", "patch_size", 0),
        ("vision_config", "hidden_size", 1.5),
        ("vision_config", "spatial_merge_size", 0),
    ],
)
def test_a_configuration_with_absurd_numbers_is_refused_by_file_and_entry(folder, section, entry, value):
    config = json.loads((folder / "config.json").read_text())
    config[section][entry] = value
    (folder / "config.json").write_text(json.dumps(config))
    for action in (load_model, load_processor):
        assert f"config.json says {entry} = {str(value)[:40]}, which must be" in refused(folder, action)


@pytest.mark.parametrize(
    ("entry", "value"), [("intermediate_size", 2**24), ("vocab_size", 2**30), ("hidden_size", 2**22)]
)
def test_a_configuration_of_a_far_larger_model_does_not_fill_the_memory(folder, entry, value):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"][entry] = value
    (folder / "config.json").write_text(json.dumps(config))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "config.json describes a model of" in refused(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", '{"model_type": "qwen2_5_vl", "text_config": 3}'),
        ("config.json", '{"model_type": "qwen2_5_vl", "text_config": {"rope_parameters": []}, "vision_config": {}}'),
        ("config.json", "[" * 100_000),
        ("generation_config.json", '{"eos_token_id": ' + "[" * 5000 + "]" * 5000 + "}"),
        ("generation_config.json", "[1]"),
        ("model.safetensors", "{}"),
    ],
)
def test_a_model_of_broken_files_is_one_line(folder, file, content):
    (folder / file).write_text(content)
    refused(folder)


# --- processors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", "{" * 100_000),
        ("tokenizer.json", '{"model": ' + "[" * 20_000 + "]" * 20_000 + "}"),
        ("tokenizer.json", "[]"),
        ("tokenizer_config.json", '{"a": ' * 20_000 + "1" + "}" * 20_000),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", '{"added_tokens_decoder": 4}'),
        ("processor_config.json", "[" * 100_000),
        ("processor_config.json", "{}"),
        ("chat_template.jinja", "{% for x in %}"),
        ("chat_template.jinja", "{{ messages.nothing.more }}"),
        ("chat_template.jinja", "{{ raise_exception('no') }}"),
        ("chat_template.jinja", ""),
    ],
)
def test_a_processor_of_broken_files_is_one_line(folder, file, content):
    (folder / file).write_text(content)
    refused(folder, load_processor)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("patch_size", 0),
        ("patch_size", -14),
        ("merge_size", 0),
        ("temporal_patch_size", 10**9),
        ("image_std", [0, 0, 0]),
        ("image_mean", [1e300, 0, 0]),
        ("rescale_factor", float("inf")),
        ("size", {"shortest_edge": 10**12, "longest_edge": 10**13}),
        ("size", {"shortest_edge": 0, "longest_edge": 0}),
        ("size", {"shortest_edge": "small", "longest_edge": 4000}),
    ],
)
def test_an_image_processor_with_absurd_numbers_is_one_line(folder, entry, value):
    path = folder / "processor_config.json"
    settings = json.loads(path.read_text())
    settings["image_processor"][entry] = value
    path.write_text(json.dumps(settings))
    refused(folder, load_processor)


BOMBS = [
    "{{ 10**(10**8) }}",
    "{% set n = messages | length %}{{ (9 + n)**(10**8) }}",
    "{{ 'x' * 10**10 }}",
    "{% set s = namespace(t='ab') %}{% for i in range(60) %}{% set s.t = s.t ~ s.t %}{% endfor %}{{ s.t }}",
    "{% for a in range(90000) %}{% for b in range(90000) %}{% for c in range(90000) %}x{% endfor %}{% endfor %}"
    "{% endfor %}",
    "{% macro again(n) %}{{ again(n + 1) }}{% endmacro %}{{ again(0) }}",
    "{{ 'x' * 2000000 }}",
]


@pytest.mark.slow
@pytest.mark.parametrize("template", BOMBS)
def test_a_template_that_computes_without_end_is_stopped(folder, template):
    (folder / "chat_template.jinja").write_text(template)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    message = refused(folder, load_processor)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "the chat template of" in message
    # seconds of the process that tried it, which the kernel ends whatever else the machine does
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < chat_templates.PROCESSOR_SECONDS + 2


@pytest.mark.parametrize("family", FAMILIES)
def test_the_templates_of_every_family_pass(family, tmp_path):
    load_processor(build_tiny_checkpoint(tmp_path / family, family))


def test_real_processors_pass(real_dir):
    files = list(real_dir.rglob("tokenizer.json"))
    for file in files:
        if (file.parent / "config.json").is_file():
            load_processor(file.parent)


@pytest.mark.parametrize("name", ["Qwen2_5_VLImageProcessor", "Qwen2_5_VLImageProcessorFast"])
def test_a_processor_saved_in_early_2025_loads_as_what_it_is_called_now(folder, tiny, name):
    to_old_processor(folder)
    change_json(folder / "preprocessor_config.json", image_processor_type=name)
    old, new = load_processor(folder), load_processor(tiny)
    assert type(old.image_processor) is type(new.image_processor)
    assert old.image_processor.size == new.image_processor.size
    assert old.chat_template == new.chat_template


# --- who may read --------------------------------------------------------------------------------------------------


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664), (0o077, 0o600)])
def test_weights_have_the_mode_of_the_umask_as_other_files(tmp_path, mask, mode):
    weights = {"weight": torch.zeros(2)}
    with umask(mask), staged_folder(tmp_path / "run") as stage:
        save_file(weights, stage / "model.safetensors")
        (stage / "inner").mkdir()
        save_file(weights, stage / "inner" / "adapter_model.safetensors")
        (stage / "config.json").write_text("{}")
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {mode}


@contextmanager
def somebody_else() -> Iterator[None]:
    """Root may read everything, so be nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared(tiny: Path) -> Iterator[Path]:
    """A checkpoint below a folder that everybody may enter; pytest's own are the user's alone."""
    place = Path(os.environ.get("TMPDIR", "/tmp")) / f"open-r1-shared-{os.getpid()}"
    shutil.copytree(tiny, place)
    for path in [place, *place.iterdir()]:
        path.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_file_that_may_not_be_read_is_one_line(shared, file):
    (shared / file).chmod(0)
    with somebody_else():
        for action in (load_model, load_processor):
            message = refused(shared, action)
            assert f"{shared / file} cannot be read: Permission denied" in message


def test_a_folder_that_may_not_be_entered_is_one_line_and_exit_status_2(shared, capsys):
    shared.chmod(0)
    with somebody_else(), pytest.raises(SystemExit) as stopped:
        run_command(lambda: len(fingerprint(shared)))
    shared.chmod(0o755)
    assert stopped.value.code == 2
    message = capsys.readouterr().err.strip()
    assert "permission denied" in message or "cannot be read" in message
    assert len(message.splitlines()) == 1
