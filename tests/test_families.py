"""Llama, Mistral and Qwen3 beside transformers: logits, greedy tokens, export, and each family's
defaults and refusals. Qwen2's own cases are in test_pretrained.py.
"""

import json

import pytest
import torch
import transformers

from config import Config, Model, UserError
from generate import generate
from losses import IGNORE, token_log_probs
from mch import ThinkingHeads
from model import SAGE, parameters
from support import checkpoint, trace_data
from support.pretrained import load_pretrained, read_pretrained_config, save_pretrained
from test_pretrained import ABSENT, change_config, judge

transformers.utils.logging.set_verbosity_error()

SIZES = dict(
    vocab_size=211,
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=112,
    initializer_range=0.1,
    max_position_embeddings=512,
)
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=5e5,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=128,
)
YARN = dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=128)
PLAIN = dict(rope_type="default", rope_theta=1e5)
MODELS = {  # transformers' config class, what differs from SIZES
    "llama 3": (transformers.LlamaConfig, dict(rope_parameters=LLAMA3)),
    "smollm2": (
        transformers.LlamaConfig,
        dict(
            hidden_size=72,
            num_attention_heads=9,
            num_key_value_heads=3,
            tie_word_embeddings=True,
            rope_parameters=PLAIN,
        ),
    ),
    "mistral": (
        transformers.MistralConfig,
        dict(sliding_window=None, head_dim=24, rope_parameters=PLAIN),
    ),
    "qwen 3": (
        transformers.Qwen3Config,
        dict(head_dim=32, tie_word_embeddings=True, rope_parameters=PLAIN),
    ),
    "qwen 3, yarn": (transformers.Qwen3Config, dict(head_dim=16, rope_parameters=YARN)),
    "qwen 2.5, yarn": (transformers.Qwen2Config, dict(rope_parameters=YARN)),
}


def tiny_of(name, folder):
    """A random model of a family, saved by transformers itself."""
    torch.manual_seed(0)
    kind, changes = MODELS[name]
    config = kind(**SIZES | json.loads(json.dumps(changes)))  # a copy: transformers fills it in
    model = transformers.AutoModelForCausalLM.from_config(config)
    for name, p in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            # untouched ones and zeros would hide a mix-up
            torch.nn.init.normal_(p, mean=1.0 if "norm" in name else 0.0, std=0.2)
    model.eval().save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Each model as transformers made it, and its folder."""
    folder = tmp_path_factory.mktemp("families")
    return {name: (tiny_of(name, folder / name), folder / name) for name in MODELS}


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_logits_and_greedy_tokens_equal_transformers(models, name):
    theirs, folder = models[name]
    ours = load_pretrained(folder)
    for length in (1, 7, 300):
        tokens = torch.randint(0, 211, (2, length))
        assert (ours(tokens) - theirs(tokens).logits).abs().max() <= 1e-4
    prompt = torch.randint(0, 211, (1, 150))
    expected = theirs.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=200,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )[0, 150:].tolist()
    assert generate(ours, prompt.tolist(), 200) == [expected]
    assert parameters(ours.config, qwen=True) == sum(p.numel() for p in theirs.parameters())


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_exports_open_as_the_family_they_came_from(models, name, tmp_path):
    theirs, folder = models[name]
    save_pretrained(load_pretrained(folder), tmp_path / "out")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert type(back) is type(theirs)
    expected = theirs.state_dict()
    assert back.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in back.state_dict().items())
    tokens = torch.randint(0, 211, (1, 300))
    assert (back(tokens).logits - theirs(tokens).logits).abs().max() <= 1e-5
    again = read_pretrained_config(tmp_path / "out")
    assert again == read_pretrained_config(folder)


CONFIGS = [  # model, changes to config.json, what the refusal must say (None: must be loaded)
    ("llama 3", {}, None),
    ("llama 3", dict(attention_bias=True), "attention_bias"),
    ("llama 3", dict(mlp_bias=True), "mlp_bias"),
    ("llama 3", dict(attention_bias=ABSENT, mlp_bias=ABSENT, pretraining_tp=2), None),
    ("llama 3", dict(rope_interleaved=True), "rope_interleaved"),
    ("llama 3", dict(num_key_value_heads=ABSENT), "wrong shape"),
    ("llama 3", dict(head_dim=ABSENT), None),
    ("llama 3", dict(head_dim=None), None),
    ("llama 3", dict(rms_norm_eps=ABSENT), None),
    ("llama 3", dict(max_position_embeddings=ABSENT), None),
    ("llama 3", dict(rope_parameters=ABSENT, rope_theta=5e5, rope_scaling=LLAMA3), None),
    ("llama 3", dict(rope_parameters=LLAMA3 | dict(factor=ABSENT)), "factor"),
    ("llama 3", dict(rope_parameters=LLAMA3 | dict(high_freq_factor=1.0)), "rope_high"),
    ("llama 3", dict(rope_parameters=LLAMA3 | dict(factor="8")), "rope_factor"),
    ("llama 3", dict(rope_parameters=LLAMA3 | dict(scale=2.0)), "scale"),
    ("llama 3", dict(rope_parameters=dict(rope_type="linear", factor=2.0)), "'linear' rotary"),
    ("llama 3", dict(architectures=["LlamaForSequenceClassification"]), "Classification"),
    ("llama 3", dict(model_type="mistral", architectures=["MistralForCausalLM"]), None),
    ("llama 3", dict(model_type="gemma2"), "'gemma2' model; wanted one of qwen2, qwen3, llama"),
    ("smollm2", dict(is_llama_config=True, rope_interleaved=False), None),
    ("smollm2", dict(tie_word_embeddings=ABSENT), "tie_word_embeddings"),
    ("mistral", {}, None),
    ("mistral", dict(sliding_window=4096), None),  # more than its context of 512
    ("mistral", dict(sliding_window=ABSENT), None),  # 4096
    ("mistral", dict(sliding_window=64), "sliding window of 64 tokens"),
    ("mistral", dict(sliding_window=ABSENT, max_position_embeddings=32_768), "4096 tokens"),
    ("mistral", dict(num_key_value_heads=ABSENT), "kv_heads"),
    ("qwen 3", {}, None),
    ("qwen 3", dict(attention_bias=True), "attention_bias"),
    ("qwen 3", dict(head_dim=ABSENT), "wrong shape"),  # 128
    ("qwen 3", dict(use_sliding_window=True, sliding_window=8), "sliding"),
    ("qwen 3", dict(model_type="qwen2", architectures=["Qwen2ForCausalLM"]), "q_proj.bias"),
]


@pytest.mark.parametrize("name, changes, refusal", CONFIGS)
def test_each_familys_config_is_read_as_transformers_reads_it(name, changes, refusal, tmp_path):
    tiny_of(name, tmp_path)
    for key, value in changes.items():
        if isinstance(value, dict):
            changes = changes | {key: {k: v for k, v in value.items() if v is not ABSENT}}
    change_config(tmp_path, changes)
    judge(tmp_path, refusal)


QWEN3 = Model(
    family="qwen3",
    vocab_size=64,
    width=32,
    layers=2,
    heads=2,
    kv_heads=1,
    head_dim=16,
    feed_forward=48,
    context=128,
    previous_token=True,
)


def test_query_and_key_norms_learn_in_bfloat16():
    model = SAGE(QWEN3)
    tokens = torch.randint(0, 64, (2, 40))
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.hidden(tokens)
    targets = tokens.roll(-1, 1)
    assert IGNORE not in targets
    token_log_probs(hidden.float(), model.unembedding, targets)[0].mean().backward()
    for block in model.blocks:
        for norm in (block.attention.q_norm, block.attention.k_norm):
            assert norm.weight.grad.isfinite().all() and norm.weight.grad.any()


@torch.no_grad()
def test_heads_and_shown_attention_have_the_decoders_norms():
    head = ThinkingHeads(QWEN3)["meta"]
    attention = head.block.attention
    torch.nn.init.normal_(attention.q_norm.weight)
    torch.nn.init.normal_(attention.k_norm.weight)
    attention.smear.fill_(0.3)
    attention.o.weight.copy_(torch.eye(32))
    hidden = torch.randn(30, 32)
    shares = trace_data.attention_of(head, hidden, [5, 29])  # (S, H, T)
    x = head.block.attention_norm(hidden[None])
    values = attention.v(x)[0]  # (T, d), of the one key-value head
    shown = (shares @ values).reshape(2, 32)
    rotation = trace_data.rotary(torch.arange(30)[None], QWEN3)
    assert (shown - attention(x, rotation)[0, [5, 29]]).abs().max() < 1e-5


def test_a_run_keeps_its_family_and_older_runs_are_qwen2(tmp_path):
    model = SAGE(QWEN3, seed=1)
    path = checkpoint.save_checkpoint(tmp_path, Config(model=QWEN3), model, [], 3)
    tokens = torch.randint(0, 64, (1, 20))
    assert torch.equal(checkpoint.load_run(tmp_path)[0](tokens), model(tokens))
    meta = json.loads((path / "meta.json").read_text())
    del meta["settings"]["model"]["family"]
    (path / "meta.json").write_text(json.dumps(meta))
    assert checkpoint.read_meta(path)[1].model.family == "qwen2"
    with pytest.raises(UserError, match="q_norm"):
        checkpoint.load_run(tmp_path)
