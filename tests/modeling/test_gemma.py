"""Gemma 3: its windows keep it off the shared prefix, and everything else works as for Qwen."""

import json
import re
from pathlib import Path

import pytest
import torch
from gemma_flags import MOVES, moved
from text_sets import medqa_row, write_lines
from text_trainings import train

from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.common.errors import UserError
from open_r1.data.text.prepare import Benchmark, prepare_benchmark
from open_r1.evaluation.answering.backends.decoder import Decoder, Prompts
from open_r1.evaluation.answering.backends.generator import Generator
from open_r1.evaluation.answering.encoder import Encoder
from open_r1.evaluation.answering.run import infer
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.evaluation.scoring.results import read_results
from open_r1.modeling.family_probe import windowed_layers
from open_r1.modeling.image_tokens import encode_prompts
from open_r1.training.command_line.parsing import parse
from open_r1.training.setup.trainable_parts import lora_config
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import build_messages
from open_r1_testbed.phantoms import make_phantoms, save_prepared
from open_r1_testbed.tiny_gemma import END_OF_TURN, WINDOW
from open_r1_testbed.tiny_models import build_tiny_checkpoint


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_checkpoint(tmp_path_factory.mktemp("gemma") / "tiny", "gemma3")


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    raw = write_lines(folder / "train.jsonl", [medqa_row(n) for n in range(8)])
    return prepare_benchmark(Benchmark("medqa", raw, "train"), folder / "sets")[0][0]


@pytest.mark.slow
def test_prompts_begin_with_one_bos_in_training_and_evaluation(gemma):
    processor = load_processor(gemma)
    tokenizer = processor.tokenizer
    assert tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id  # as the published tokenizer does
    row = {"id": "1", "problem": "Which?\nA) x\nB) y", "images": []}
    encoded = Encoder(processor, Mode.THINK)([row])
    [tokens] = encoded.prompts.tokens
    assert tokens.count(tokenizer.bos_token_id) == 1
    messages = build_messages(row["problem"], Mode.THINK, images=0)
    trained = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert tokens == trained
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    shared = encode_prompts([text], [[]], processor, torch.device("cpu"))  # a model that shares the prefix
    assert shared.ids[0].tolist() == trained


@pytest.mark.slow
def test_prompts_of_any_length_are_continued_as_generate_does_beyond_the_window(gemma):
    model, tokenizer = load_model(gemma, dtype="float32"), load_processor(gemma).tokenizer
    assert windowed_layers(model.config) == 1
    rng = torch.Generator().manual_seed(0)
    lengths = [5, WINDOW - 1, WINDOW + 1, 3 * WINDOW]
    rows = [torch.randint(270, len(tokenizer), (length,), generator=rng).tolist() for length in lengths]
    rows[1][:4] = rows[3][:4]  # a common beginning, which must not be shared here
    end = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    decoder = Decoder(model, [end], tokenizer.pad_token_id, WINDOW + 8)

    def greedy(logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        return logits.argmax(-1)

    tokens = decoder(Prompts(rows, [()] * len(rows)), greedy, samples=2)
    for number, row in enumerate(rows):
        alone = model.generate(
            torch.tensor([row]), max_new_tokens=WINDOW + 8, do_sample=False, eos_token_id=[end], pad_token_id=0
        )[0, len(row) :]
        for sample in (0, 1):
            assert tokens[2 * number + sample, : len(alone)].tolist() == alone.tolist()


def test_image_tokens_are_never_written(gemma):
    model, tokenizer = load_model(gemma), load_processor(gemma).tokenizer
    names = ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    assert Generator(model, tokenizer, 4).forbidden == sorted(tokenizer.convert_tokens_to_ids(names))


@pytest.mark.parametrize("recipe", ["lora", "qlora"])
def test_the_recipes_adapt_the_language_model_alone(gemma, repository, recipe):
    [path] = (repository / "recipes" / "Gemma-3-12b-it" / "grpo").glob(f"*_{recipe}.yaml")
    script, _, model_config = parse(["--config", str(path)])
    model = load_model(gemma)
    config = lora_config(model, script, model_config)
    assert config is not None
    pattern = re.compile(str(config.target_modules))
    adapted = [name for name, _ in model.named_modules() if pattern.fullmatch(name)]
    assert len(adapted) == 2 * 7  # q, k, v, o, gate, up, down in two layers
    assert all(".language_model." in name for name in adapted)


@pytest.mark.slow
def test_training_goes_the_stock_way_and_says_why_and_the_adapter_answers(
    gemma, questions, tmp_path, monkeypatch, capsys
):
    flags = ["--use_peft", "--lora_r", "4", "--learning_rate", "0.01", *MOVES]
    step = train(monkeypatch, gemma, questions, tmp_path / "run", *flags)
    assert step["step"] == 2
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("shared prefix:")]
    assert lines == [
        "shared prefix: off (1 of its layers use sliding-window attention, which packed rows do not support); "
        "stock TRL computes every prompt once per completion"
    ]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "done"
    adapter = json.loads((tmp_path / "run" / "adapter_config.json").read_text())
    assert adapter["r"] == 4
    assert moved(tmp_path / "run")
    write_lines(tmp_path / "test.jsonl", [medqa_row(n) for n in range(20, 24)])
    [(data, _)] = prepare_benchmark(Benchmark("medqa", tmp_path / "test.jsonl"), tmp_path / "sets")
    results = tmp_path / "answers.jsonl"
    settings = InferenceSettings(str(tmp_path / "run"), str(data), str(results), batch_size=3, max_new_tokens=4)
    assert infer(settings) == 0
    assert len(read_results(results).results) == 4


def towers(folder: Path) -> list[torch.Tensor]:
    return [weight for name, weight in load_model(folder).named_parameters() if "vision_tower" in name]


@pytest.mark.slow
def test_images_train_and_a_mixture_with_text_is_refused(gemma, questions, tmp_path, monkeypatch):
    make_phantoms(tmp_path / "phantoms", train=1, test=1)
    data = save_prepared(tmp_path / "phantoms", tmp_path / "prepared")
    step = train(monkeypatch, gemma, data, tmp_path / "run", *MOVES)
    assert step["step"] == 2
    assert any(not torch.equal(a, b) for a, b in zip(towers(gemma), towers(tmp_path / "run"), strict=True))
    with pytest.raises(UserError, match=r"prompts are not shared here \(1 of its layers use sliding-window"):
        train(monkeypatch, gemma, data, tmp_path / "mixed", "--dataset_name", str(data), str(questions))
