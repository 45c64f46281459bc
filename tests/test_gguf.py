"""GGUF files: every quantisation beside the library's own, Llama's rotary order beside
transformers, settings, and files that are damaged or not read.
"""

import struct
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch
import transformers
from gguf import GGMLQuantizationType as Kind

from config import UserError
from generate import generate
from support import checkpoint
from support.gguf_file import gguf_name, open_gguf, read_gguf_rows
from support.pretrained import is_pretrained, load_pretrained, read_pretrained_config
from support.pretrained import save_pretrained, tensor_name
from support.published import model_path
from support.training_run import open_model

transformers.utils.logging.set_verbosity_error()

# 256 wide: the blocks of the K-quantisations
SIZES = dict(
    vocab_size=97,
    hidden_size=256,
    num_hidden_layers=2,
    num_attention_heads=8,
    num_key_value_heads=2,
    intermediate_size=256,
    max_position_embeddings=512,
    initializer_range=0.05,
    rms_norm_eps=1e-5,
)
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=5e5,
    factor=32.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=8192,
)
YARN = dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=128)
PLAIN = dict(rope_type="default", rope_theta=1e5)
MODELS = {  # architecture and transformers' config class, what differs from SIZES
    "llama, tied": ("llama", transformers.LlamaConfig, PLAIN, dict(tie_word_embeddings=True)),
    "llama 3": ("llama", transformers.LlamaConfig, LLAMA3, {}),
    "mistral": ("llama", transformers.MistralConfig, PLAIN, dict(sliding_window=None, head_dim=64)),
    "qwen 2": ("qwen2", transformers.Qwen2Config, PLAIN, {}),
    "qwen 2, yarn": ("qwen2", transformers.Qwen2Config, YARN, {}),
    "qwen 3": (
        "qwen3",
        transformers.Qwen3Config,
        PLAIN,
        dict(head_dim=128),
    ),  # transformers reads no other
}


def tiny_model(name):
    """A random model of transformers."""
    _, kind, rope, changes = MODELS[name]
    torch.manual_seed(0)
    config = kind(**SIZES, rope_parameters=dict(rope), **changes)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for name, p in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            torch.nn.init.normal_(p, mean=1.0 if "norm" in name else 0.0, std=0.2)
    return model


def settings_of(name, config):
    """What llama.cpp's converter writes of a model's config."""
    rope = MODELS[name][2]
    found = {
        "vocab_size": config.vocab_size,
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": rope["rope_theta"],
    }
    if getattr(config, "head_dim", None):
        found["attention.key_length"] = config.head_dim
    if rope["rope_type"] == "yarn":
        found["rope.scaling.type"] = "yarn"
        found["rope.scaling.factor"] = rope["factor"]
        found["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
    return found


def converted(name, model):
    """A model's tensors under llama.cpp's names and in its order, as its converter makes them."""
    config = model.config
    tensors = {}
    parts = dict(
        input_layernorm="attn_norm",
        post_attention_layernorm="ffn_norm",
        o_proj="attn_output",
        embed_tokens="token_embd",
        lm_head="output",
    )
    for theirs, p in model.named_parameters():
        words = theirs.split(".")
        part, kind = words[-2:]
        stem = parts.get(part, part.removesuffix("_proj"))
        if stem in ("q", "k", "v", "q_norm", "k_norm"):
            stem = "attn_" + stem
        if stem in ("gate", "up", "down"):
            stem = "ffn_" + stem
        if stem == "norm":
            stem = "output_norm"
        value = p.detach()
        if MODELS[name][0] == "llama" and stem in ("attn_q", "attn_k"):
            heads = config.num_attention_heads if stem == "attn_q" else config.num_key_value_heads
            rows = value.shape[0] // heads
            # llama.cpp, convert_hf_to_gguf.py, LlamaModel.permute
            value = value.view(heads, 2, rows // 2, -1).swapaxes(1, 2).reshape(value.shape)
        front = f"blk.{words[2]}." if words[1] == "layers" else ""
        tensors[f"{front}{stem}.{kind}"] = value.numpy()
    if name == "llama 3":
        plain = 5e5 ** -(torch.arange(0, 32, 2).float() / 32)
        scaled = model.model.rotary_emb.inv_freq
        tensors["rope_freqs.weight"] = (plain / scaled).numpy()
    return tensors


def write_gguf(path, architecture, settings, tensors, kinds=None, **options):
    """A GGUF file by the library's writer; `kinds` names the quantisation of some tensors, whose
    rows are then bytes.
    """
    writer = gguf.GGUFWriter(path, architecture, **options)
    adders = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    adders[bool] = writer.add_bool
    for key, value in settings.items():
        key = key if "split" in key else f"{architecture}.{key}"
        adders[type(value)](key, value)
    for key, value in tensors.items():
        writer.add_tensor(key, value, raw_dtype=(kinds or {}).get(key))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Each model as transformers made it, and its GGUF file."""
    folder = tmp_path_factory.mktemp("gguf")
    found = {}
    for name, (architecture, *_) in MODELS.items():
        model = tiny_model(name)
        path = folder / name.replace(", ", "-").replace(" ", "") / "model.gguf"
        path.parent.mkdir()
        write_gguf(path, architecture, settings_of(name, model.config), converted(name, model))
        found[name] = SimpleNamespace(model=model, path=path)
    return found


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_the_models_that_were_converted(files, name):
    theirs, path = files[name].model, files[name].path
    assert is_pretrained(path)
    ours = load_pretrained(path)
    tokens = torch.randint(0, 97, (2, 300))
    assert (ours(tokens) - theirs(tokens).logits).abs().max() <= 1e-4
    assert ours.config.norm_eps == 1e-5
    assert isinstance(ours.config.rope_theta, float)


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama, tied", "qwen 2", "qwen 3"])
def test_transformers_reads_the_same_from_the_file(files, name):
    path = files[name].path
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    ours = dict(load_pretrained(path).named_parameters())
    expected = theirs.state_dict()
    for name, p in ours.items():
        if tensor_name(name):
            assert torch.equal(p, expected[tensor_name(name)]), name


def test_a_file_becomes_a_folder_of_its_family(files, tmp_path):
    save_pretrained(load_pretrained(files["llama 3"].path), tmp_path / "folder")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "folder").eval()
    assert type(back).__name__ == "LlamaForCausalLM"
    tokens = torch.randint(0, 97, (1, 100))
    with torch.no_grad():
        expected = files["llama 3"].model(tokens).logits
        assert (back(tokens).logits - expected).abs().max() <= 1e-4


def test_ranks_read_their_own_rows(files):
    path = files["llama, tied"].path
    for name in ("blk.1.attn_q.weight", "blk.1.attn_k.weight", "token_embd.weight"):
        whole = read_gguf_rows(path, name, ...)
        for rows in (slice(0, 20), slice(20, 40), slice(40, 40)):
            assert torch.equal(read_gguf_rows(path, name, rows), whole[rows])


QUANTISED = [
    *("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"),
]


def stored_as(value, kind):
    """A matrix in a quantisation: by the library, or random blocks where it has no writer."""
    try:
        return gguf.quantize(value, kind)
    except NotImplementedError:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        shape = (value.shape[0], value.shape[1] // block * size)
        # below 60 every pair of bytes is a finite float16
        return np.random.default_rng(0).integers(0, 60, shape, dtype=np.uint8)


@pytest.mark.parametrize("kind", QUANTISED)
def test_quantisations_equal_the_librarys_own_floats(files, kind, tmp_path):
    name = "qwen 3"
    model = files[name].model
    kind = Kind[kind]
    tensors = converted(name, model)
    kinds = {}
    for key, value in tensors.items():
        if value.ndim == 2:
            tensors[key] = stored_as(value, kind)
            kinds[key] = kind
    path = tmp_path / "model.gguf"
    write_gguf(path, "qwen3", settings_of(name, model.config), tensors, kinds)
    ours = dict(load_pretrained(path).named_parameters())
    for name, p in ours.items():
        if tensor_name(name):
            key = gguf_name(name)
            expected = gguf.dequantize(tensors[key], kinds.get(key, Kind.F32))
            assert np.isfinite(expected).all() and expected.any()
            assert np.array_equal(p.detach().numpy(), expected), key


def test_stages_and_figures_take_a_file(files):
    path = files["qwen 2"].path
    assert open_model(path).config.family == "qwen2"
    identity = checkpoint.weights_identity(path)
    assert identity["step"] is None and identity["weights"]
    assert checkpoint.weights_identity(path.with_name("none.gguf")) is None
    with pytest.raises(UserError, match="no thinking heads"):
        checkpoint.load_heads(path, read_pretrained_config(path))


# --------------------------------------------------------------------------------------------------
# Files that are not read.


def refused(path, wanted):
    with pytest.raises(UserError, match=wanted) as caught:
        load_pretrained(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_damaged_files_are_one_line_with_file_and_remedy(files, tmp_path):
    content = files["qwen 2"].path.read_bytes()
    path = tmp_path / "model.gguf"
    for size in (0, 3, 20, 100, 700, 2000, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        refused(path, rf"is no whole GGUF file \({size:,} bytes; .*copy it anew")
    path.write_bytes(b"<!DOCTYPE html>" + content)
    refused(path, "no whole GGUF file")
    path.write_bytes(content[:4] + struct.pack("<I", 1) + content[8:])
    refused(path, "version 1")
    path.unlink()
    refused(path, "no file")
    path.mkdir()
    refused(path, "no file")


@pytest.mark.parametrize(
    "changes, wanted",
    [
        (dict(block_count=3), "missing: blk.2"),
        (dict(block_count=1), "not expected: blk.1"),
        ({"attention.head_count_kv": 4}, r"wrong shape: blk.0.attn_k.weight is \(64, 256\)"),
        (dict(block_count=None), "lacks settings.*qwen2.block_count"),
        ({"attention.head_count": None}, "lacks settings"),
        ({"attention.head_count_kv": 3}, "kv_heads"),
        ({"attention.layer_norm_rms_epsilon": None}, "lacks settings"),
        ({"expert_count": 8}, "8 experts"),
        ({"attention.sliding_window": 128}, "sliding window of 128"),
        ({"attention.sliding_window": 512}, None),
        ({"attention.causal": False}, "both sides"),
        ({"rope.dimension_count": 16}, "16 of a head's 32"),
        ({"rope.dimension_count": 32}, None),
        ({"rope.scaling.type": "none"}, None),
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 2.0}, "'linear' rotary"),
        ({"rope.scaling.type": "longrope", "rope.scaling.factor": 2.0}, "'longrope' rotary"),
        ({"rope.scale_linear": 4.0}, "'linear' rotary"),
        ({"rope.scaling.type": "yarn"}, "lacks settings"),
        ({"split.count": 3}, "one of 3 parts"),
    ],
)
def test_settings_are_read_or_refused_by_name(files, changes, wanted, tmp_path):
    model = files["qwen 2"].model
    settings = settings_of("qwen 2", model.config) | changes
    settings = {key: value for key, value in settings.items() if value is not None}
    path = tmp_path / "model.gguf"
    write_gguf(path, "qwen2", settings, converted("qwen 2", model))
    if wanted:
        refused(path, wanted)
    else:
        load_pretrained(path)


def test_unknown_kinds_are_named(files, tmp_path):
    name = "qwen 2"
    model = files[name].model
    tensors = converted(name, model)
    settings = settings_of(name, model.config)
    path = tmp_path / "model.gguf"
    write_gguf(path, "gemma3", settings, tensors)
    refused(path, "architecture 'gemma3'; wanted one of llama, qwen2, qwen3")

    write_gguf(path, "qwen2", settings, tensors, endianess=gguf.GGUFEndian.BIG)
    refused(path, "other byte order")

    key = "blk.0.ffn_up.weight"  # a quantisation that the library names, and cannot read
    block, size = gguf.GGML_QUANT_SIZES[Kind.Q8_K]
    rows = np.zeros((256, 256 // block * size), np.uint8)
    write_gguf(path, "qwen2", settings, tensors | {key: rows}, {key: Kind.Q8_K})
    refused(path, f"{key} as Q8_K.*wanted F32, F16")

    write_gguf(path, "qwen2", settings, tensors)  # and one that it does not know
    content = path.read_bytes()
    place = content.index(key.encode()) + len(key) + 4 + 2 * 8
    path.write_bytes(content[:place] + struct.pack("<I", 99) + content[place + 4 :])
    refused(path, "99.* is not a valid GGMLQuantizationType.*wanted F32")


def test_tensors_that_are_missing_or_more_are_named(files, tmp_path):
    name = "llama 3"
    model = files[name].model
    settings = settings_of(name, model.config)
    path = tmp_path / "model.gguf"
    for change, wanted in (
        ({"blk.0.attn_q.bias": np.zeros(256, np.float32)}, "not expected: blk.0.attn_q.bias"),
        ({"blk.0.attn_q.weight": None}, "missing: blk.0.attn_q.weight"),
        ({"token_embd.weight": None}, "token_embd"),
        ({"rope_freqs.weight": np.ones(16, np.float32) * 3}, "other factors"),
    ):
        tensors = converted(name, model) | change
        tensors = {key: value for key, value in tensors.items() if value is not None}
        write_gguf(path, "llama", settings, tensors)
        refused(path, wanted)


def test_a_folder_with_a_file_says_to_name_the_file(files):
    folder = files["qwen 2"].path.parent
    with pytest.raises(UserError, match=r"wanted a folder.*path of a GGUF file \(model.gguf"):
        load_pretrained(folder)


# --------------------------------------------------------------------------------------------------
# A real model.


@pytest.mark.slow
@torch.no_grad()
def test_smollm2_equals_transformers():
    path = model_path("smollm2")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()
    ours = load_pretrained(path)
    tokens = torch.randint(0, 49_152, (2, 300), generator=torch.Generator().manual_seed(0))
    assert (ours(tokens) - theirs(tokens).logits).abs().max() <= 1e-4
    prompt = tokens[:1, :20]
    expected = theirs.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=200,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )[0, 20:].tolist()
    assert generate(ours, prompt.tolist(), 200) == [expected]
    assert open_gguf(path).settings["general.license"] == "apache-2.0"
