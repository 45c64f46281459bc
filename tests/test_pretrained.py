"""Weights in and out, beside transformers' own Qwen2: logits, greedy tokens, folders that open in
both directions, damaged folders.
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from support import checkpoint
from support import export
from support.pretrained import load_pretrained, save_pretrained
from support.weights import restore_folder, written_aside
import eval as evaluation
from support import tokenizer_folder, tokenizer_spec, weights
from config import Config, Model, UserError
from conftest import ROOT
from generate import generate
from model import SAGE, parameters
from support.qwen_sizes import SIZES
from support.training_run import TrainingRun, open_model

transformers.utils.logging.set_verbosity_error()
SHAPES = [  # tied, heads, kv_heads, θ, ε, shard size
    (True, 4, 2, 1e6, 1e-6, "5GB"),
    (False, 4, 4, 1e4, 1e-5, "100KB"),
    (True, 6, 1, 5e5, 1e-6, "60KB"),
    (False, 8, 2, 1e6, 1e-5, "5GB"),
]


def tiny(
    folder,
    tied=True,
    heads=4,
    kv_heads=2,
    theta=1e6,
    eps=1e-6,
    shard="5GB",
    dtype=torch.float32,
    seed=0,
):
    """A random Qwen2 model, saved to `folder` by transformers itself."""
    torch.manual_seed(seed)
    config = transformers.Qwen2Config(
        vocab_size=211,
        hidden_size=16 * heads,
        num_hidden_layers=3,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=112,
        tie_word_embeddings=tied,
        rope_theta=theta,
        rms_norm_eps=eps,
        initializer_range=0.1,
        max_position_embeddings=512,
    )
    model = transformers.Qwen2ForCausalLM(config)
    for name, p in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            torch.nn.init.normal_(
                p, mean=1.0 if "norm" in name else 0.0, std=0.2
            )  # untouched ones and zeros would hide a mix-up
    model = model.to(dtype).eval()
    model.save_pretrained(folder, max_shard_size=shard)
    return model


@pytest.mark.parametrize("tied, heads, kv_heads, theta, eps, shard", SHAPES)
def test_logits_and_greedy_tokens_equal_transformers(
    tmp_path, tied, heads, kv_heads, theta, eps, shard
):
    theirs = tiny(tmp_path, tied, heads, kv_heads, theta, eps, shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard != "5GB")
    ours = load_pretrained(tmp_path)
    with torch.no_grad():
        for length in (1, 7, 300):
            tokens = torch.randint(0, 211, (2, length))
            assert (ours(tokens) - theirs(tokens).logits).abs().max() <= 1e-4
        prompt = torch.randint(0, 211, (1, 9))
        expected = theirs.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=40,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=None,
        )[0, 9:].tolist()
    assert generate(ours, prompt.tolist(), 40) == [expected]


def test_bf16_files(tmp_path):
    """bf16 weights read as float32 give the logits that transformers gives when it reads them as
    float32.
    """
    tiny(tmp_path, dtype=torch.bfloat16)
    theirs = transformers.Qwen2ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokens = torch.randint(0, 211, (2, 50))
    with torch.no_grad():
        assert (load_pretrained(tmp_path)(tokens) - theirs(tokens).logits).abs().max() <= 1e-4
    assert next(load_pretrained(tmp_path, torch.bfloat16).parameters()).dtype == torch.bfloat16


def test_gate_does_not_matter_after_loading(tmp_path):
    tiny(tmp_path)
    model = load_pretrained(tmp_path)
    tokens = torch.randint(0, 211, (2, 40))
    before = model(tokens)
    for p in (model.embedding.out.weight, model.embedding.out.bias, model.embedding.convolution):
        torch.nn.init.normal_(p, std=3.0)
    assert torch.equal(model(tokens), before)
    torch.nn.init.normal_(
        model.embedding.code.weight
    )  # and once the two embeddings differ, it does
    assert not torch.allclose(model(tokens), before)


@pytest.mark.parametrize("tied, heads, kv_heads, theta, eps, shard", SHAPES[:2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trip_to_transformers_is_bit_equal(
    tmp_path, tied, heads, kv_heads, theta, eps, shard, dtype
):
    tiny(tmp_path / "in", tied, heads, kv_heads, theta, eps, shard, dtype)
    theirs = transformers.Qwen2ForCausalLM.from_pretrained(tmp_path / "in", dtype=dtype).eval()
    save_pretrained(
        load_pretrained(tmp_path / "in", dtype),
        tmp_path / "out",
        shard_bytes=100_000 if tied else 1 << 30,
    )
    back = transformers.Qwen2ForCausalLM.from_pretrained(tmp_path / "out", dtype=dtype)
    expected = theirs.state_dict()
    assert back.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in back.state_dict().items())
    tokens = torch.randint(0, 211, (1, 30))
    with torch.no_grad():
        assert torch.equal(back.eval()(tokens).logits, theirs(tokens).logits)


def test_what_sage_learnt_comes_back(tmp_path):
    model = SAGE(
        Model(
            vocab_size=64,
            width=32,
            heads=2,
            kv_heads=1,
            head_dim=16,
            feed_forward=48,
            layers=2,
            previous_token=True,
        ),
        seed=3,
    )
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    save_pretrained(model, tmp_path / "x")
    tokens = torch.randint(0, 64, (2, 20))
    assert torch.equal(load_pretrained(tmp_path / "x")(tokens), model(tokens))


@pytest.mark.parametrize(
    "size, billions",
    [("0.5B", 0.49), ("1.5B", 1.54), ("3B", 3.09), ("7B", 7.61), ("14B", 14.7), ("32B", 32.5)],
)
def test_sizes_equal_the_published_shapes(size, billions):
    """Against the counts of Qwen2.5's model cards, and to the last parameter against transformers'
    Qwen2 of the same shape.
    """
    shape = SIZES[size]
    assert (
        abs(parameters(shape, qwen=True) / 1e9 / billions - 1) < 0.011
    )  # cards round, the 32B one downwards
    with torch.device("meta"):
        theirs = transformers.Qwen2ForCausalLM(
            transformers.Qwen2Config(
                vocab_size=shape.vocab_size,
                hidden_size=shape.width,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                num_key_value_heads=shape.kv_heads,
                intermediate_size=shape.feed_forward,
                tie_word_embeddings=shape.tied,
            )
        )
    assert parameters(shape, qwen=True) == sum(p.numel() for p in theirs.parameters())


def test_loading_needs_little_more_memory_than_the_model(tmp_path):
    """In a fresh process: peak resident memory while loading, over the model's size, stays under
    1.15.
    """
    config = transformers.Qwen2Config(
        vocab_size=20_000,
        hidden_size=1024,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        intermediate_size=4096,
        tie_word_embeddings=True,
    )
    transformers.Qwen2ForCausalLM(config).save_pretrained(tmp_path / "big", max_shard_size="200MB")
    tiny(
        tmp_path / "tiny"
    )  # loaded first, so that what torch itself imports on the way is not counted as the model's
    code = """
import sys, threading, time, torch
from support.pretrained import load_pretrained
load_pretrained(sys.argv[1] + "/tiny")
def resident():
    line = next(l for l in open('/proc/self/status') if l.startswith('VmRSS'))
    return int(line.split()[1]) * 1024
before, peak, done = resident(), [0], []
def watch():
    while not done:
        peak[0] = max(peak[0], resident()); time.sleep(0.002)
thread = threading.Thread(target=watch); thread.start()
model = load_pretrained(sys.argv[1] + "/big")
done.append(1); thread.join()
print((peak[0] - before) / sum(p.nbytes for p in model.parameters()))
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    assert 0.9 < float(result.stdout) < 1.15


def break_folder(folder, how):
    first = sorted(folder.glob("model*.safetensors"))[0]
    if how == "no config":
        (folder / "config.json").unlink()
    elif how == "config no json":
        (folder / "config.json").write_text("{")
    elif how == "another model":
        (folder / "config.json").write_text(json.dumps(dict(model_type="gpt2")))
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
        settings["rope_parameters"] = dict(rope_type="linear", factor=4.0, rope_theta=1e6)
        (folder / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    "how, wanted",
    [
        ("no config", "wanted a folder with config.json"),
        ("config no json", "cannot be read as a model's config"),
        ("another model", "'gpt2' model; wanted one of qwen2"),
        ("no weights", "no weights in|is missing"),
        ("shard absent", "is missing, though its folder needs it"),
        ("truncated", "damaged or cut short"),
        ("corrupt header", "damaged or cut short"),
        ("missing and extra", "missing: .*not expected: surplus"),
        ("wrong shape", r"wrong shape: .* is \(.*wanted \("),
        ("rope scaling", "linear"),
    ],
)
def test_damaged_folders_are_one_line_with_file_and_remedy(tmp_path, how, wanted):
    tiny(tmp_path, shard="100KB")
    break_folder(tmp_path, how)
    with pytest.raises(UserError, match=wanted) as caught:
        load_pretrained(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_missing_folder_from_the_command_line(tmp_path):
    result = subprocess.run(
        [sys.executable, ROOT / "sample.py", "--run", str(tmp_path / "nowhere")],
        capture_output=True,
        text=True,
    )
    assert (
        result.returncode == 1
        and result.stderr.startswith("error: ")
        and result.stderr.count("\n") == 1
    )


# --------------------------------------------------------------------------------------------------
# config.json as tools write it. Transformers reads the same folder: equal logits, or a refusal.

ABSENT = object()
V4 = dict(
    rope_parameters=ABSENT, layer_types=ABSENT, dtype=ABSENT, torch_dtype="bfloat16", rope_theta=1e6
)
SLIDING = dict(use_sliding_window=True, sliding_window=8)


def rope(**settings):
    return dict(rope_parameters=dict(rope_theta=1e6, **settings))


def old_rope(**settings):
    return dict(V4, rope_scaling=settings)


def quantised(**settings):
    return dict(quantization_config=settings)


CONFIGS = [  # name, changes to config.json, what the refusal must say (None: must be loaded)
    ("as transformers 5 writes it", {}, None),
    (
        "as transformers 4.37 wrote it",
        dict(V4, rope_scaling=None, sliding_window=131072, use_sliding_window=False),
        None,
    ),
    ("rope_scaling empty", dict(V4, rope_scaling={}), None),
    ("no rotary settings", dict(rope_parameters=ABSENT), None),
    ("rope_theta stale beside rope_parameters", dict(rope_theta=10_000.0), None),
    ("rope_theta null beside rope_parameters", dict(rope_theta=None), None),
    ("rope_theta an integer", dict(V4, rope_theta=1_000_000), None),
    ("rope_theta null", dict(V4, rope_theta=None), "rope_theta"),
    (
        "rope_scaling before rope_parameters",
        dict(rope_scaling=dict(rope_type="default", rope_theta=5e4)),
        None,
    ),
    (
        "rope_scaling without theta, rope_parameters with",
        dict(rope_scaling=dict(type="default")),
        None,
    ),
    (
        "rope_parameters without theta",
        dict(rope_parameters=dict(rope_type="default"), rope_theta=3e5),
        None,
    ),
    ("rope_parameters with theta alone", dict(rope_parameters=dict(rope_theta=3e5)), None),
    (
        "yarn, old key",
        old_rope(type="yarn", factor=4.0, original_max_position_embeddings=128),
        None,
    ),
    ("yarn", rope(rope_type="yarn", factor=4.0), None),
    (
        "yarn, all it may say",
        rope(
            rope_type="yarn",
            factor=8.0,
            original_max_position_embeddings=64,
            attention_factor=1.3,
            beta_fast=8.0,
            beta_slow=0.5,
        ),
        None,
    ),
    (
        "yarn, as DeepSeek has it",
        rope(
            rope_type="yarn",
            factor=8.0,
            original_max_position_embeddings=64,
            mscale=0.7,
            mscale_all_dim=1.2,
        ),
        None,
    ),
    ("yarn between pairs", rope(rope_type="yarn", factor=4.0, truncate=False), "truncate"),
    ("yarn without a factor", rope(rope_type="yarn"), "factor"),
    ("linear", old_rope(rope_type="linear", factor=2.0), "linear"),
    ("dynamic", old_rope(type="dynamic", factor=2.0), "dynamic"),
    (
        "llama3",
        rope(
            rope_type="llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=16,
        ),
        None,
    ),
    (
        "longrope",
        rope(
            rope_type="longrope",
            factor=2.0,
            short_factor=[2.0] * 8,
            long_factor=[4.0] * 8,
            original_max_position_embeddings=256,
        ),
        "longrope",
    ),
    ("rope_type of nobody", rope(rope_type="spiral"), "spiral"),
    ("rope_type null", rope(rope_type=None), "rotary"),
    ("mrope", old_rope(type="mrope", mrope_section=[2, 3, 3]), "mrope"),
    (
        "mrope sections",
        old_rope(type="default", rope_type="default", mrope_section=[2, 3, 3]),
        "mrope_section",
    ),
    (
        "nested by layer type",
        dict(rope_parameters=dict(full_attention=dict(rope_type="default", rope_theta=1e6))),
        "full_attention",
    ),
    ("rope_parameters a list", dict(rope_parameters=[1]), "cannot be read"),
    (
        "partial rotary in rope_parameters",
        rope(rope_type="default", partial_rotary_factor=0.5),
        "partial_rotary_factor",
    ),
    (
        "partial rotary in rope_scaling",
        old_rope(type="default", partial_rotary_factor=0.25),
        "partial_rotary_factor",
    ),
    ("partial rotary", dict(partial_rotary_factor=0.5), "partial_rotary_factor"),
    ("partial rotary of the whole", dict(partial_rotary_factor=1.0), None),
    ("hidden_act swish", dict(hidden_act="swish"), None),
    ("hidden_act absent", dict(hidden_act=ABSENT), None),
    ("hidden_act null", dict(hidden_act=None), "hidden_act"),
    ("hidden_act gelu", dict(hidden_act="gelu"), "gelu"),
    ("hidden_act gelu_pytorch_tanh", dict(hidden_act="gelu_pytorch_tanh"), "gelu_pytorch_tanh"),
    ("hidden_act relu", dict(hidden_act="relu"), "relu"),
    ("hidden_act SiLU", dict(hidden_act="SiLU"), "SiLU"),
    (
        "sliding window, no layer slides",
        dict(SLIDING, layer_types=ABSENT, max_window_layers=3),
        "sliding",
    ),
    (
        "sliding window, its layers beyond the last",
        dict(SLIDING, layer_types=ABSENT, max_window_layers=ABSENT),
        "sliding",
    ),
    (
        "sliding window without a width",
        dict(use_sliding_window=True, sliding_window=None, layer_types=ABSENT, max_window_layers=0),
        "sliding",
    ),
    ("sliding window, all layers named full", dict(SLIDING, max_window_layers=0), "sliding"),
    (
        "sliding window, last layers",
        dict(SLIDING, layer_types=ABSENT, max_window_layers=1),
        "sliding",
    ),
    (
        "sliding window, all layers",
        dict(SLIDING, layer_types=ABSENT, max_window_layers=0),
        "sliding",
    ),
    (
        "layer_types with a sliding one",
        dict(SLIDING, layer_types=["full_attention", "sliding_attention", "full_attention"]),
        "sliding",
    ),
    ("layer_types sliding, window off", dict(layer_types=["sliding_attention"] * 3), "sliding"),
    (
        "layer_types of another kind",
        dict(layer_types=["linear_attention", "full_attention", "full_attention"]),
        "linear_attention",
    ),
    ("layer_types too short", dict(layer_types=["full_attention"]), "layers"),
    ("not causal", dict(is_causal=False), "is_causal"),
    ("not causal, by null", dict(is_causal=None), "is_causal"),
    (
        "layers that differ",
        dict(per_layer_config={"1": dict(num_key_value_heads=1)}),
        "per_layer_config",
    ),
    (
        "weights by another name",
        dict(transformers_weights="other.safetensors"),
        "other.safetensors",
    ),
    ("code of its own", dict(auto_map=dict(AutoModelForCausalLM="modeling_x.X")), "auto_map"),
    ("head_dim of another width", dict(head_dim=32), "wrong shape"),
    ("tied, key absent", dict(tie_word_embeddings=ABSENT), "tie_word_embeddings"),
    ("tied by a word", dict(tie_word_embeddings="true"), "tied"),
    ("norm's ε absent", dict(rms_norm_eps=ABSENT), None),
    ("norm's ε null", dict(rms_norm_eps=None), "norm_eps"),
    ("context absent", dict(max_position_embeddings=ABSENT), None),
    ("kv heads absent", dict(num_key_value_heads=ABSENT), "kv_heads"),
    ("kv heads null, yet two", dict(num_key_value_heads=None), "wrong shape"),
    ("layers as text", dict(num_hidden_layers="3"), "config.json"),
    ("more layers than weights", dict(num_hidden_layers=4, layer_types=ABSENT), "missing"),
    ("fewer layers than weights", dict(num_hidden_layers=2, layer_types=ABSENT), "not expected"),
    ("no width", dict(hidden_size=ABSENT), "hidden_size"),
    ("architectures null", dict(architectures=None), None),
    (
        "a classifier",
        dict(architectures=["Qwen2ForSequenceClassification"]),
        "Qwen2ForSequenceClassification",
    ),
    (
        "a tagger",
        dict(architectures=["Qwen2ForTokenClassification"]),
        "Qwen2ForTokenClassification",
    ),
    ("an encoder", dict(architectures=["Qwen2Model"]), "Qwen2Model"),
    (
        "qwen2 mixture",
        dict(model_type="qwen2_moe", architectures=["Qwen2MoeForCausalLM"]),
        "qwen2_moe",
    ),
    ("qwen3", dict(model_type="qwen3", architectures=["Qwen3ForCausalLM"]), "q_norm"),
    ("no model_type", dict(model_type=ABSENT), "None"),
    ("GPTQ", quantised(quant_method="gptq", bits=4), "quantised.*gptq"),
    ("AWQ", quantised(quant_method="awq", bits=4), "quantised.*awq"),
    (
        "bitsandbytes",
        quantised(load_in_4bit=True, quant_method="bitsandbytes"),
        "quantised.*bitsandbytes",
    ),
    ("fp8", quantised(quant_method="fp8", weight_block_size=[128, 128]), "quantised.*fp8"),
    (
        "compressed-tensors",
        dict(compression_config=dict(quant_method="compressed-tensors")),
        "quantised.*compressed-tensors",
    ),
    ("MLX", dict(quantization=dict(group_size=64, bits=4)), "quantised.*4 bits"),
    ("quantization_config null", dict(quantization_config=None), None),
]


def change_config(folder, changes):
    settings = json.loads((folder / "config.json").read_text())
    settings |= changes
    (folder / "config.json").write_text(
        json.dumps({key: value for key, value in settings.items() if value is not ABSENT})
    )


def logits_of_transformers(folder, tokens):
    """What transformers makes of a folder; None where it refuses it or misses weights there."""
    try:
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        if report["missing_keys"] or report["mismatched_keys"]:
            return None
        return model.eval()(tokens, use_cache=False).logits
    except Exception:
        return None


@torch.no_grad()
def judge(folder, refusal):
    """A changed folder gives transformers' logits, or a refusal in one line that says why."""
    tokens = torch.randint(0, 211, (2, 60), generator=torch.Generator().manual_seed(1))
    theirs = logits_of_transformers(folder, tokens)
    if refusal is None:
        assert theirs is not None, "transformers does not load this folder: it cannot be asked for"
        assert (load_pretrained(folder)(tokens) - theirs).abs().max() <= 1e-4
        return
    with pytest.raises(UserError, match=refusal) as caught:
        load_pretrained(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize("name, changes, refusal", CONFIGS, ids=[row[0] for row in CONFIGS])
def test_config_is_read_as_transformers_reads_it_or_refused_by_name(
    tmp_path, name, changes, refusal
):
    tiny(tmp_path)
    change_config(tmp_path, changes)
    judge(tmp_path, refusal)


def test_head_dim_null_is_the_usual_width(tmp_path):
    """Transformers 4.37 wrote it; version 5 divides by it and raises, so its model judges."""
    theirs = tiny(tmp_path)
    change_config(tmp_path, dict(V4, head_dim=None))
    tokens = torch.randint(0, 211, (2, 60))
    with torch.no_grad():
        assert (load_pretrained(tmp_path)(tokens) - theirs(tokens).logits).abs().max() <= 1e-4


def test_kv_heads_null_and_head_dim_apart(tmp_path):
    tiny(tmp_path, heads=4, kv_heads=4)
    change_config(tmp_path, dict(num_key_value_heads=None, head_dim=16))
    judge(tmp_path, None)


def test_untied_is_the_default(tmp_path):
    tiny(tmp_path, tied=False)
    change_config(tmp_path, dict(tie_word_embeddings=ABSENT))
    judge(tmp_path, None)


@pytest.mark.parametrize(
    "changes, told",
    [
        (dict(), []),
        (dict(logit_scale=0.5, attention_bias=False), ["logit_scale"]),
        (dict(final_softcap=30, x=1), ["final_softcap", "x"]),
    ],
)
def test_unknown_settings_are_told_and_change_nothing(tmp_path, capsys, changes, told):
    tiny(tmp_path)
    change_config(tmp_path, changes)
    capsys.readouterr()
    judge(tmp_path, None)
    note = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note:")]
    assert len(note) == bool(told)
    assert not told or note[0].endswith(": " + ", ".join(told))


# --------------------------------------------------------------------------------------------------
# Tensors as other tools leave them.

UP = "model.layers.0.mlp.up_proj"


def renamed(tensors, change):
    for name in list(tensors):
        tensors[change(name)] = tensors.pop(name)


def quantise(tensors, **parts):
    del tensors[UP + ".weight"]
    tensors |= {f"{UP}.{name}": tensor for name, tensor in parts.items()}


def change_tensors(tensors, how):
    embedding = tensors["model.embed_tokens.weight"]
    weight = tensors[UP + ".weight"]
    match how:
        case "tied head, equal":
            tensors["lm_head.weight"] = embedding.clone()
        case "tied head, another":
            tensors["lm_head.weight"] = embedding + 1
        case "tied head, last row another":
            tensors["lm_head.weight"] = torch.cat([embedding[:-1], embedding[-1:] + 1])
        case "tied head, another shape":
            tensors["lm_head.weight"] = embedding[:-1].clone()
        case "tied head, another type":
            tensors["lm_head.weight"] = embedding.bfloat16()
        case "rotary buffers":
            tensors |= {
                f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(8) for i in range(3)
            }
        case "rotary buffer of the model":
            tensors["model.rotary_emb.inv_freq"] = torch.ones(8)
        case "float64":
            tensors[UP + ".weight"] = weight.double()
        case "value head":
            tensors["v_head.summary.weight"] = torch.ones(1, 64)
        case "score head":
            tensors["score.weight"] = torch.ones(2, 64)
        case "no prefix":
            renamed(tensors, lambda name: name.removeprefix("model."))
        case "peft":
            renamed(tensors, lambda name: "base_model.model." + name)
        case "vision":
            renamed(tensors, lambda name: "language_model." + name)
        case "vision, transformers 5":
            renamed(tensors, lambda name: name.replace("model.", "model.language_model."))
        case "compiled":
            renamed(tensors, lambda name: "_orig_mod." + name)
        case "data parallel":
            renamed(tensors, lambda name: "module." + name)
        case "lora inside":
            tensors[UP + ".lora_A.weight"] = torch.ones(4, 64)
        case "GPTQ":
            quantise(
                tensors,
                qweight=torch.ones(8, 112, dtype=torch.int32),
                qzeros=torch.ones(1, 14, dtype=torch.int32),
                scales=torch.ones(1, 112),
                g_idx=torch.ones(64, dtype=torch.int32),
            )
        case "bitsandbytes 4 bits":
            tensors |= {
                UP + ".weight": torch.ones(3584, 1, dtype=torch.uint8),
                UP + ".weight.absmax": torch.ones(112),
                UP + ".weight.quant_map": torch.ones(16),
            }
        case "bitsandbytes 8 bits":
            tensors |= {UP + ".weight": weight.to(torch.int8), UP + ".SCB": torch.ones(112)}
        case "float8, scaled":
            tensors |= {
                UP + ".weight": weight.to(torch.float8_e4m3fn),
                UP + ".weight_scale": torch.ones(1),
            }
        case "float8 blocks":
            tensors |= {
                UP + ".weight": weight.to(torch.float8_e4m3fn),
                UP + ".weight_scale_inv": torch.ones(1, 1),
            }
        case "float8, bare":
            tensors[UP + ".weight"] = weight.to(torch.float8_e5m2)
        case "int8, bare":
            tensors[UP + ".weight"] = weight.to(torch.int8)
        case "bool":
            tensors[UP + ".weight"] = weight > 0
        case "compressed-tensors":
            quantise(
                tensors,
                weight_packed=torch.ones(112, 8, dtype=torch.int32),
                weight_shape=torch.tensor([112, 64]),
            )
        case "MLX":
            tensors |= {
                UP + ".weight": torch.ones(112, 8, dtype=torch.uint32),
                UP + ".scales": torch.ones(112, 1),
                UP + ".biases": torch.ones(112, 1),
            }


@pytest.mark.parametrize(
    "how, refusal",
    [
        ("tied head, equal", None),
        ("rotary buffers", None),
        ("rotary buffer of the model", None),
        ("float64", None),
        ("tied head, another", "ties its head.*lm_head.weight"),
        ("tied head, last row another", "ties its head"),
        ("tied head, another shape", "ties its head"),
        ("tied head, another type", "ties its head"),
        ("value head", "v_head"),
        ("score head", "score.weight"),
        ("no prefix", "other names.*: embed_tokens|other names.*: layers"),
        ("peft", r"base_model\.model\.model"),
        ("vision", r"language_model\.model"),
        ("vision, transformers 5", r"model\.language_model"),
        ("compiled", "_orig_mod"),
        ("data parallel", r"module\.model"),
        ("lora inside", "lora_A"),
        ("GPTQ", "quantised"),
        ("bitsandbytes 4 bits", "quantised"),
        ("bitsandbytes 8 bits", "quantised"),
        ("float8, scaled", "quantised"),
        ("float8 blocks", "quantised"),
        ("float8, bare", "quantised.*F8_E5M2"),
        ("int8, bare", "quantised.*I8"),
        ("bool", "BOOL"),
        ("compressed-tensors", "quantised"),
        ("MLX", "quantised"),
    ],
)
def test_tensors_of_other_tools(tmp_path, how, refusal):
    tiny(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    change_tensors(tensors, how)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    judge(tmp_path, refusal)


def test_extra_tensors_in_a_shard_of_their_own(tmp_path):
    tiny(tmp_path, shard="100KB")
    save_file(
        {"v_head.summary.weight": torch.ones(1, 64)},
        tmp_path / "model-value.safetensors",
        metadata={"format": "pt"},
    )
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    index["weight_map"]["v_head.summary.weight"] = "model-value.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    judge(tmp_path, "not expected: v_head.summary.weight")


def test_two_sets_of_weights_are_told_and_read_as_transformers_reads_them(tmp_path, capsys):
    tiny(tmp_path, shard="100KB", seed=0)
    judge(tmp_path, None)
    assert "two sets" not in capsys.readouterr().err
    tiny(tmp_path / "other", seed=1)
    (tmp_path / "other" / "model.safetensors").rename(tmp_path / "model.safetensors")
    judge(tmp_path, None)
    assert "two sets of weights, model.safetensors and the shards" in capsys.readouterr().err
    for path in tmp_path.glob("model-*"):
        path.unlink()  # an index that names what is gone, beside a whole file
    judge(tmp_path, None)
    (tmp_path / "model.safetensors").unlink()
    judge(tmp_path, "is missing, though its folder needs it")


def test_an_index_that_puts_a_tensor_into_another_shard(tmp_path):
    tiny(tmp_path, shard="100KB")
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    one, *_, other = index["weight_map"]
    index["weight_map"] |= {one: index["weight_map"][other], other: index["weight_map"][one]}
    path.write_text(json.dumps(index))
    judge(tmp_path, None)


def test_weights_in_other_formats_are_named(tmp_path):
    tiny(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    judge(tmp_path, "pytorch_model.bin is not read")


def test_an_adapter_beside_a_whole_model_is_refused(tmp_path):
    """Transformers with peft would add it to the weights."""
    tiny(tmp_path)
    (tmp_path / "adapter_config.json").write_text(
        json.dumps(dict(peft_type="LORA", base_model_name_or_path=str(tmp_path)))
    )
    judge(tmp_path, "LoRA adapter")
    with pytest.raises(UserError, match="LoRA adapter"):
        open_model(tmp_path)


def test_an_exported_run_opens_in_transformers_with_equal_logits(tmp_path, monkeypatch, capsys):
    shape = Model(
        vocab_size=300,
        width=32,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=8,
        feed_forward=48,
        context=64,
        tied=False,
    )
    model = SAGE(shape, seed=2)
    checkpoint.save_checkpoint(tmp_path / "run", Config(model=shape), model, [], 3)
    words = ["export", str(tmp_path / "run"), str(tmp_path / "out")]
    tokens = torch.randint(300, (2, 40))
    for dtype in ("float32", "bfloat16"):
        monkeypatch.setattr(sys, "argv", [*words, "--dtype", dtype])
        export.main()
        assert f"step 3, to {tmp_path / 'out'} in {dtype}" in capsys.readouterr().out
        theirs = transformers.Qwen2ForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
        assert str(theirs.dtype) == f"torch.{dtype}"
        expected = SAGE(shape, seed=2).to(theirs.dtype).float()(tokens)
        assert (theirs.float()(tokens).logits - expected).abs().max() <= 1e-4


# --------------------------------------------------------------------------------------------------
# A writer that is killed, or whose disk fails, at every single step.

CHANGING = ("os.mkdir", "os.rename", "os.remove", "os.rmdir")  # audit events


def write_version(folder, version):
    with written_aside(folder) as aside:
        for name in ("a", "b"):
            (aside / name).write_text(version)


def version_of(folder):
    """What a reader finds: the version that all of the folder's files have."""
    restore_folder(folder)
    versions = {path.name: path.read_text() for path in folder.iterdir()}
    assert versions.keys() == {"a", "b"} and len(set(versions.values())) == 1, versions
    return versions["a"]


def interrupted(folder, version, step, how):
    """Write a version in a child that dies or fails at change `step`; whether that came."""
    child = os.fork()
    if child == 0:
        left = [step]

        def strike(event, arguments):
            if event in CHANGING:
                left[0] -= 1
                if left[0] == -1:
                    if how == "kill":
                        os.kill(os.getpid(), signal.SIGKILL)
                    raise OSError(errno.EIO, "the disk")

        sys.addaudithook(strike)
        try:
            write_version(folder, version)
        except OSError:
            os._exit(1)
        os._exit(0 if left[0] >= 0 else 2)  # 2: it failed where that does not matter
    return os.waitpid(child, 0)[1] != 0


@pytest.mark.parametrize("how", ["kill", "fail"])
def test_a_whole_version_is_there_after_an_interruption_at_every_step(tmp_path, monkeypatch, how):
    # what a process has renamed stays so when it is killed, whether or not it is on the disk
    monkeypatch.setattr(weights, "flush_to_disk", lambda path: None)
    steps = 0
    for first in range(100):
        for second in range(100):
            folder = tmp_path / f"{first}-{second}" / "model"
            write_version(folder, "0")
            if not interrupted(folder, "1", first, how):
                break
            again = interrupted(folder, "2", second, how)  # amid the first one's remains
            aside = folder.with_name("model.old")  # counts if the folder is lost
            assert not aside.exists() or len(list(aside.iterdir())) == 2
            assert how == "kill" or folder.exists()
            assert version_of(folder) in ("0", "1", "2")
            assert again or version_of(folder) == "2"
            steps += 1
            write_version(folder, "3")
            assert version_of(folder) == "3"
            assert [path.name for path in folder.parent.iterdir()] == ["model"]
            if not again:
                break
        if not second:
            break
    assert steps > 25  # mkdir, renames and removals, each after each


def test_an_export_replaces_nothing_but_an_export(tmp_path):
    tiny(tmp_path / "published")
    model = load_pretrained(tmp_path / "published")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    for name in ("home", "published"):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UserError, match=f"{name} holds other files than an earlier export"):
            save_pretrained(model, tmp_path / name)
        assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "home").rename(tmp_path / "out.old")
    with pytest.raises(UserError, match="out.old holds other files"):
        save_pretrained(model, tmp_path / "out")
    for _ in range(2):
        save_pretrained(model, tmp_path / "again")


def test_the_readers_put_the_old_version_back(tmp_path):
    tiny(tmp_path / "in")
    save_pretrained(load_pretrained(tmp_path / "in"), tmp_path / "model")
    shutil.rmtree(tmp_path / "in")
    (tmp_path / "model").rename(tmp_path / "model.old")  # killed between the renames
    assert isinstance(open_model(tmp_path / "model"), SAGE)
    (tmp_path / "model").rename(tmp_path / "model.old")
    assert isinstance(load_pretrained(tmp_path / "model"), SAGE)
    shutil.copytree(
        tmp_path / "model", tmp_path / "model.old"
    )  # killed while the old one was deleted
    save_pretrained(load_pretrained(tmp_path / "model"), tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_runs_checkpoint_is_put_back(tmp_path):
    config = Config(
        model=Model(
            vocab_size=64,
            width=16,
            layers=1,
            heads=2,
            kv_heads=1,
            head_dim=8,
            feed_forward=16,
            context=32,
        )
    )
    path = checkpoint.save_checkpoint(tmp_path, config, SAGE(config.model), [], 7)
    path.rename(path.with_name(path.name + ".old"))
    assert checkpoint.latest(tmp_path) == path
    checkpoint.load_run(tmp_path)


def test_a_reader_between_the_renames_does_not_stop_the_writer(tmp_path, monkeypatch):
    folder, rename, met = tmp_path / "model", Path.rename, []
    write_version(folder, "0")

    def read_after(path, target):
        result = rename(path, target)
        if not folder.exists() and not met:
            met.append(version_of(folder))
        return result

    monkeypatch.setattr(Path, "rename", read_after)
    write_version(folder, "1")
    assert met == ["0"] and version_of(folder) == "1"


def test_names_are_on_the_disk_before_the_old_version_goes(tmp_path, monkeypatch):
    """Files, the new folder, the folder that names it; the old version is there until then."""
    synced, fsync = [], os.fsync
    write_version(tmp_path / "model", "0")

    def noted(descriptor):
        synced.append(
            (
                Path(os.readlink(f"/proc/self/fd/{descriptor}")).name,
                (tmp_path / "model.old").exists(),
            )
        )
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    write_version(tmp_path / "model", "1")
    assert sorted(synced[:2]) == [("a", False), ("b", False)]
    assert synced[2:] == [("model.tmp", False), (tmp_path.name, True)]


def test_a_link_to_a_folder_is_written_through_and_a_file_is_refused(tmp_path):
    write_version(tmp_path / "real", "0")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for version in ("1", "2"):
        write_version(tmp_path / "link", version)
        assert version_of(tmp_path / "real") == version and (tmp_path / "link").is_symlink()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        write_version(tmp_path / "file", "1")
    assert (tmp_path / "file").read_text() == "mine"


# --------------------------------------------------------------------------------------------------
# The window: landmark attention is dense attention up to it, and says when a text exceeds it.


def test_the_note_comes_exactly_when_logits_change(tmp_path, capsys):
    theirs = tiny(tmp_path)
    tokens = torch.randint(0, 211, (1, 40), generator=torch.Generator().manual_seed(1))
    for window, stride in ((16, 4), (16, 1), (1, 4), (7, 64), (39, 4), (38, 4), (40, 4)):
        for length in (1, window, window + 1, min(window + 2, 40), 40):
            model = load_pretrained(tmp_path, window=window, stride=stride)
            capsys.readouterr()
            with torch.no_grad():
                text = tokens[:, :length]
                same = (model(text) - theirs(text).logits).abs().max() <= 1e-4
                model(text)
            notes = capsys.readouterr().err
            assert notes.count("note:") == (0 if same else 1), (window, stride, length)
            assert same or f"window of {window}" in notes and "--window 512" in notes


def test_the_note_comes_when_a_text_grows_beyond_the_window(tmp_path, capsys):
    theirs = tiny(tmp_path)
    prompt = torch.randint(0, 211, (2, 10), generator=torch.Generator().manual_seed(1)).tolist()
    for new in (8, 9, 12):  # 17 tokens are read of window 16 + 1, then 18, then more
        model = load_pretrained(tmp_path, window=16, stride=4)
        generate(model, prompt, new)
        assert capsys.readouterr().err.count("note:") == (new > 8), new
    dense = generate(load_pretrained(tmp_path, window=512), prompt, 60)
    assert not capsys.readouterr().err
    with torch.no_grad():
        ids = torch.tensor(prompt)
        expected = theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=60,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=None,
        )
    assert dense == expected[:, 10:].tolist()


def test_a_models_own_window_needs_no_note(tmp_path, capsys):
    """Weights trained with landmark attention are read as they learnt to."""
    config = Model(
        vocab_size=64,
        width=16,
        layers=1,
        heads=2,
        kv_heads=1,
        head_dim=8,
        feed_forward=16,
        context=128,
        window=8,
        landmark_stride=4,
    )
    SAGE(config)(torch.zeros(1, 100, dtype=torch.int64))
    assert not capsys.readouterr().err


def qwen_of_the_toys_tokens(folder):
    save_pretrained(
        SAGE(
            Model(
                vocab_size=1024,
                width=32,
                layers=2,
                heads=2,
                kv_heads=1,
                head_dim=16,
                feed_forward=48,
                context=640,
            )
        ),
        folder,
    )
    return str(folder)


def stage_of(tmp_path, source, window, stride, resume=False):
    config = Config(
        out=str(tmp_path / "lineage" / "base"),
        resume=resume,
        model=Model(window=window, landmark_stride=stride),
    )
    config.distill.start, config.distill.device, config.distill.dtype = source, "cpu", "float32"
    return TrainingRun(config, "distilled", "base", 4, config.distill)


def test_window_and_stride_reach_a_stage_and_its_further_models(tmp_path):
    source = qwen_of_the_toys_tokens(tmp_path / "qwen")
    stage = stage_of(tmp_path, source, 24, 8)
    for model in (stage.model, stage.load_decoder(stage.source)):
        assert (model.config.window, model.config.landmark_stride) == (24, 8)
    assert (stage.config.model.window, stage.config.model.landmark_stride) == (24, 8)
    stage.save(1)
    assert stage_of(tmp_path, source, 24, 8, resume=True).model.config.window == 24
    assert checkpoint.load_run(stage.folder)[0].config.window == 24
    with pytest.raises(UserError, match="window: \\[24, 8\\] → \\[32, 8\\]"):
        stage_of(tmp_path, source, 32, 8, resume=True)
    with pytest.raises(UserError, match="window: \\[24, 8\\] → \\[24, 4\\]"):
        stage_of(tmp_path, source, 24, 4, resume=True)


def test_window_and_stride_reach_train(tmp_path):
    source = qwen_of_the_toys_tokens(tmp_path / "qwen")
    text, out = tmp_path / "text", tmp_path / "run"
    text.mkdir()
    for number in range(12):  # held out are some of them, by a hash of their names
        (text / f"{number}.py").write_text(f"def f{number}(x):\n    return x + {number}\n" * 100)
    result = subprocess.run(
        [
            sys.executable,
            ROOT / "train.py",
            "--train.start",
            source,
            "--out",
            str(out),
            "--data.path",
            str(text),
            "--data.validation",
            "0.5",
            "--data.sequence",
            "32",
            "--train.steps",
            "1",
            "--train.batch",
            "2",
            "--train.device",
            "cpu",
            "--train.sample-every",
            "0",
            "--model.window",
            "24",
            "--model.landmark-stride",
            "8",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("window of 24") == 1  # rows of 32 tokens
    config = checkpoint.load_run(out)[0].config
    assert (config.window, config.landmark_stride) == (24, 8)


def test_window_and_stride_reach_eval_and_its_kept_figures(tmp_path, monkeypatch):
    source = Path(qwen_of_the_toys_tokens(tmp_path / "qwen"))
    seen = []

    def measured(model, tokenizer, config):
        seen.append((model.config.window, model.config.landmark_stride))
        return {"success/api greedy": [(1, 2)]}

    monkeypatch.setattr(evaluation, "measure", measured)
    for window, stride in ((24, 8), (24, 8), (32, 8), (32, 4)):
        evaluation.evaluate_run(
            source, Config(model=Model(window=window, landmark_stride=stride)), "cpu"
        )
    assert seen == [(24, 8), (32, 8), (32, 4)]  # figures of another window are another model's


@pytest.mark.parametrize(
    "options, noted",
    [
        ([], True),
        (["--window", "640"], False),
        (["--landmark-stride", "1"], False),
        (["--window", "80"], True),
    ],
)
def test_sample_sets_the_window(tmp_path, options, noted):
    folder = tmp_path / "qwen"
    special = {marker: 256 + number for number, marker in enumerate(tokenizer_folder.QWEN_SPECIAL)}
    shape = Model(
        vocab_size=256 + len(special),
        width=32,
        layers=1,
        heads=2,
        kv_heads=1,
        head_dim=16,
        feed_forward=48,
        context=640,
    )
    save_pretrained(SAGE(shape), folder)
    (folder / "vocab.json").write_text(json.dumps(tokenizer_spec.gpt2_alphabet()))
    (folder / "merges.txt").write_text("")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(dict(added_tokens_decoder={t: dict(content=m) for m, t in special.items()}))
    )
    given = options or ["--window", "64"]
    prompt = "word " * 30
    result = subprocess.run(
        [
            sys.executable,
            ROOT / "sample.py",
            "--run",
            str(folder),
            "--prompt",
            prompt,
            "--tokens",
            "2",
            *given,
        ],
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("note:") == noted and ("window of" in result.stderr) == noted
