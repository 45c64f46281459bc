"""Weights in and out, beside transformers' own Qwen2: logits, greedy tokens, folders that open in both directions, damaged folders."""

import json
import os
import subprocess
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import checkpoint
from config import Model, UserError
from conftest import ROOT
from generate import generate
from model import SAGE, SIZES, parameters

transformers.utils.logging.set_verbosity_error()
SHAPES = [  # tied, heads, kv_heads, θ, ε, shard size
    (True, 4, 2, 1e6, 1e-6, "5GB"),
    (False, 4, 4, 1e4, 1e-5, "100KB"),
    (True, 6, 1, 5e5, 1e-6, "60KB"),
    (False, 8, 2, 1e6, 1e-5, "5GB"),
]


def tiny(folder, tied=True, heads=4, kv_heads=2, theta=1e6, eps=1e-6, shard="5GB", dtype=torch.float32, seed=0):
    """A random Qwen2 model, saved to `folder` by transformers itself."""
    torch.manual_seed(seed)
    config = transformers.Qwen2Config(vocab_size=211, hidden_size=16 * heads, num_hidden_layers=3, num_attention_heads=heads, num_key_value_heads=kv_heads, intermediate_size=112,
                                      tie_word_embeddings=tied, rope_theta=theta, rms_norm_eps=eps, initializer_range=0.1, max_position_embeddings=512)
    model = transformers.Qwen2ForCausalLM(config)
    for name, p in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            torch.nn.init.normal_(p, mean=1.0 if "norm" in name else 0.0, std=0.2)  # untouched ones and zeros would hide a mix-up
    model = model.to(dtype).eval()
    model.save_pretrained(folder, max_shard_size=shard)
    return model


@pytest.mark.parametrize("tied, heads, kv_heads, theta, eps, shard", SHAPES)
def test_logits_and_greedy_tokens_equal_transformers(tmp_path, tied, heads, kv_heads, theta, eps, shard):
    theirs = tiny(tmp_path, tied, heads, kv_heads, theta, eps, shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard != "5GB")
    ours = checkpoint.load_qwen(tmp_path)
    with torch.no_grad():
        for length in (1, 7, 300):
            tokens = torch.randint(0, 211, (2, length))
            assert (ours(tokens) - theirs(tokens).logits).abs().max() <= 1e-4
        prompt = torch.randint(0, 211, (1, 9))
        expected = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=40, do_sample=False, pad_token_id=0, eos_token_id=None)[0, 9:].tolist()
    assert generate(ours, prompt.tolist(), 40) == [expected]


def test_bf16_files(tmp_path):
    """bf16 weights read as float32 give the logits that transformers gives when it reads them as float32."""
    tiny(tmp_path, dtype=torch.bfloat16)
    theirs = transformers.Qwen2ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokens = torch.randint(0, 211, (2, 50))
    with torch.no_grad():
        assert (checkpoint.load_qwen(tmp_path)(tokens) - theirs(tokens).logits).abs().max() <= 1e-4
    assert next(checkpoint.load_qwen(tmp_path, torch.bfloat16).parameters()).dtype == torch.bfloat16


def test_gate_does_not_matter_after_loading(tmp_path):
    tiny(tmp_path)
    model = checkpoint.load_qwen(tmp_path)
    tokens = torch.randint(0, 211, (2, 40))
    before = model(tokens)
    for p in (model.embedding.out.weight, model.embedding.out.bias, model.embedding.convolution):
        torch.nn.init.normal_(p, std=3.0)
    assert torch.equal(model(tokens), before)
    torch.nn.init.normal_(model.embedding.code.weight)  # and once the two embeddings differ, it does
    assert not torch.allclose(model(tokens), before)


@pytest.mark.parametrize("tied, heads, kv_heads, theta, eps, shard", SHAPES[:2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trip_to_transformers_is_bit_equal(tmp_path, tied, heads, kv_heads, theta, eps, shard, dtype):
    tiny(tmp_path / "in", tied, heads, kv_heads, theta, eps, shard, dtype)
    theirs = transformers.Qwen2ForCausalLM.from_pretrained(tmp_path / "in", dtype=dtype).eval()
    checkpoint.save_qwen(checkpoint.load_qwen(tmp_path / "in", dtype), tmp_path / "out", shard_bytes=100_000 if tied else 1 << 30)
    back = transformers.Qwen2ForCausalLM.from_pretrained(tmp_path / "out", dtype=dtype)
    expected = theirs.state_dict()
    assert back.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in back.state_dict().items())
    tokens = torch.randint(0, 211, (1, 30))
    with torch.no_grad():
        assert torch.equal(back.eval()(tokens).logits, theirs(tokens).logits)


def test_what_sage_learnt_comes_back(tmp_path):
    model = SAGE(Model(vocab_size=64, width=32, heads=2, kv_heads=1, head_dim=16, feed_forward=48, layers=2, previous_token=True), seed=3)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    checkpoint.save_qwen(model, tmp_path / "x")
    tokens = torch.randint(0, 64, (2, 20))
    assert torch.equal(checkpoint.load_qwen(tmp_path / "x")(tokens), model(tokens))


@pytest.mark.parametrize("size, billions", [("0.5B", 0.49), ("1.5B", 1.54), ("3B", 3.09), ("7B", 7.61), ("14B", 14.7), ("32B", 32.5)])
def test_sizes_equal_the_published_shapes(size, billions):
    """Against the counts of Qwen2.5's model cards, and to the last parameter against transformers' Qwen2 of the same shape."""
    shape = SIZES[size]
    assert abs(parameters(shape, qwen=True) / 1e9 / billions - 1) < 0.011  # cards round, the 32B one downwards
    with torch.device("meta"):
        theirs = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(
            vocab_size=shape.vocab_size, hidden_size=shape.width, num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
            intermediate_size=shape.feed_forward, tie_word_embeddings=shape.tied))
    assert parameters(shape, qwen=True) == sum(p.numel() for p in theirs.parameters())


def test_loading_needs_little_more_memory_than_the_model(tmp_path):
    """In a fresh process: peak resident memory while loading, over the model's size, stays under 1.15."""
    config = transformers.Qwen2Config(vocab_size=20_000, hidden_size=1024, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=2, intermediate_size=4096, tie_word_embeddings=True)
    transformers.Qwen2ForCausalLM(config).save_pretrained(tmp_path / "big", max_shard_size="200MB")
    tiny(tmp_path / "tiny")  # loaded first, so that what torch itself imports on the way is not counted as the model's
    code = """
import sys, threading, time, torch
import checkpoint
checkpoint.load_qwen(sys.argv[1] + "/tiny")
resident = lambda: int(next(l for l in open('/proc/self/status') if l.startswith('VmRSS')).split()[1]) * 1024
before, peak, done = resident(), [0], []
def watch():
    while not done:
        peak[0] = max(peak[0], resident()); time.sleep(0.002)
thread = threading.Thread(target=watch); thread.start()
model = checkpoint.load_qwen(sys.argv[1] + "/big")
done.append(1); thread.join()
print((peak[0] - before) / sum(p.nbytes for p in model.parameters()))
"""
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr
    assert 0.9 < float(result.stdout) < 1.15


def break_folder(folder, how):
    first = sorted(folder.glob("model*.safetensors"))[0]
    if how == "no config":
        (folder / "config.json").unlink()
    elif how == "config no json":
        (folder / "config.json").write_text("{")
    elif how == "another model":
        (folder / "config.json").write_text(json.dumps(dict(model_type="llama")))
    elif how == "no weights":
        for path in folder.glob("model*"):
            path.unlink()
    elif how == "shard absent":
        first.unlink()
    elif how == "truncated":
        first.write_bytes(first.read_bytes()[:-100])
    elif how == "corrupt header":
        first.write_bytes(b"\xff" * 64 + first.read_bytes()[64:])
    elif how == "missing and extra":
        tensors = load_file(first)
        tensors["surplus"] = tensors.pop(sorted(tensors)[0]).clone()
        save_file(tensors, first)
    elif how == "wrong shape":
        tensors = load_file(first)
        name = sorted(tensors)[0]
        tensors[name] = tensors[name][:-1].clone()
        save_file(tensors, first)
    elif how == "rope scaling":
        settings = json.loads((folder / "config.json").read_text())
        settings["rope_parameters"] = dict(rope_type="yarn", factor=4.0, rope_theta=1e6)
        (folder / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("how, wanted", [
    ("no config", "wanted a folder with config.json"), ("config no json", "cannot be read as a Qwen2 config"), ("another model", "only qwen2"), ("no weights", "no weights in|is missing"),
    ("shard absent", "is missing, though its folder needs it"), ("truncated", "damaged or cut short"), ("corrupt header", "damaged or cut short"),
    ("missing and extra", "missing: .*not expected: surplus"), ("wrong shape", r"wrong shape: .* is \(.*wanted \("), ("rope scaling", "yarn"),
])
def test_damaged_folders_are_one_line_with_file_and_remedy(tmp_path, how, wanted):
    tiny(tmp_path, shard="100KB")
    break_folder(tmp_path, how)
    with pytest.raises(UserError, match=wanted) as caught:
        checkpoint.load_qwen(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_missing_folder_from_the_command_line(tmp_path):
    result = subprocess.run([sys.executable, ROOT / "sample.py", "--run", str(tmp_path / "nowhere")], capture_output=True, text=True)
    assert result.returncode == 1 and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
