"""LoRA adapters, in and out, beside peft."""

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from config import UserError
from conftest import ROOT
from support import export
from support.adapter import ADAPTER_WEIGHTS, adapter_factor, save_adapter
from support.checkpoint import weights_identity
from support.pretrained import by_their_names, load_pretrained, save_pretrained
from support.published import ADAPTER_CONFIG, PUBLISHED
from support.training_run import open_model
from support.weights import ADAPTER_MARK

TOKENS = torch.randint(0, 211, (2, 30), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def base(tmp_path):
    """The folder of a random Llama, saved by transformers."""
    torch.manual_seed(0)
    shape = transformers.LlamaConfig(
        vocab_size=211,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=112,
        initializer_range=0.1,
        max_position_embeddings=512,
    )
    transformers.LlamaForCausalLM(shape).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def pefts(base, folder, **settings):
    """An adapter with random updates, written by peft; and the logits of the model with it."""
    import peft  # here: it brings triton along, which test_kernels.py imports in its own way

    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM.from_pretrained(base)
    lora = peft.LoraConfig(
        r=4, lora_alpha=7, target_modules=["q_proj", "down_proj"], init_lora_weights=False
    )
    for name, value in settings.items():
        setattr(lora, name, value)
    model = peft.get_peft_model(model, lora)
    model.save_pretrained(folder)
    with torch.no_grad():
        return model.eval()(TOKENS).logits


@torch.no_grad()
def logits(model):
    return model(TOKENS)


@pytest.mark.parametrize("stabilised", [False, True])
def test_what_peft_wrote_is_read(base, tmp_path, stabilised):
    wanted = pefts(base, tmp_path / "theirs", use_rslora=stabilised)
    found = logits(open_model(tmp_path / "theirs"))
    assert (found - wanted).abs().max() < 1e-4
    assert (logits(load_pretrained(base)) - wanted).abs().max() > 0.1


def write(model, base, folder, rank, dtype=torch.bfloat16):
    """The change of a model from the base as an adapter; the share that is kept."""
    start, end = by_their_names(load_pretrained(base)), by_their_names(model)
    return save_adapter(end, start, folder, base=str(base), rank=rank, dtype=dtype)


def changed(base):
    """The base with random changes in the last two layers' matrices."""
    model = load_pretrained(base)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.blocks[1:].named_parameters():
            if parameter.ndim == 2:
                parameter += 0.05 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize(
    "dtype, rounding", [(torch.float32, 1e-4), (torch.bfloat16, 0.03), (torch.float8_e4m3fn, 0.2)]
)
def test_peft_opens_what_is_written_here(base, tmp_path, dtype, rounding):
    """At the full rank both have the changed model's logits, but for the type's rounding."""
    import peft  # as above

    model = changed(base)
    kept = write(model, base, tmp_path / "ours", 64, dtype)
    assert kept == pytest.approx(1)
    theirs = transformers.LlamaForCausalLM.from_pretrained(base)
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "ours").eval()
    with torch.no_grad():
        found = theirs(TOKENS).logits
    wanted = logits(model)
    far = (logits(load_pretrained(base)) - wanted).abs().max()
    assert (found - wanted).abs().max() < rounding * far
    assert (logits(load_pretrained(tmp_path / "ours")) - found).abs().max() < 1e-4


def test_a_lower_rank_is_the_nearest_matrix(base, tmp_path):
    """The share that is kept grows with the rank, and is that of the written update."""
    model = changed(base)
    first = load_pretrained(base)
    kept = [write(model, base, tmp_path / "ours", rank) for rank in (8, 2)]
    assert 0 < kept[1] < kept[0] < 1
    rest = whole = 0.0
    written = dict(load_pretrained(tmp_path / "ours").named_parameters())
    start = dict(first.named_parameters())
    for name, parameter in model.blocks.named_parameters(prefix="blocks"):
        rest += (parameter - written[name]).square().sum().item()
        whole += (parameter - start[name]).square().sum().item()
    assert 1 - rest / whole == pytest.approx(kept[1], abs=1e-3)


def test_an_export_replaces_its_own_adapter_and_nobody_elses(base, tmp_path):
    pefts(base, tmp_path / "theirs")
    before = weights_identity(tmp_path / "theirs")
    model = changed(base)
    with pytest.raises(UserError, match="theirs holds other files than an earlier export"):
        write(model, base, tmp_path / "theirs", 4)
    with pytest.raises(UserError, match="theirs holds other files than an earlier export"):
        save_pretrained(model, tmp_path / "theirs")
    assert weights_identity(tmp_path / "theirs") == before
    for rank in (4, 8):
        write(model, base, tmp_path / "ours", rank)
    assert json.loads((tmp_path / "ours" / ADAPTER_CONFIG).read_text())["r"] == 8


def test_a_model_that_has_not_changed(base, tmp_path):
    with pytest.raises(UserError, match="no matrix of the model differs"):
        write(load_pretrained(base), base, tmp_path / "ours", 4)


def test_stages_know_which_adapter_they_began_with(base, tmp_path):
    pefts(base, tmp_path / "theirs")
    first = weights_identity(tmp_path / "theirs")
    assert first["weights"] == weights_identity(base)["weights"] and "adapter" in first
    parts = load_file(tmp_path / "theirs" / ADAPTER_WEIGHTS)
    doubled = {name: 2 * part for name, part in parts.items()}
    save_file(doubled, tmp_path / "theirs" / ADAPTER_WEIGHTS)
    assert weights_identity(tmp_path / "theirs") != first


def spoilt(folder, spoil):
    """Spoil an adapter's settings, or its tensors."""
    config = json.loads((folder / ADAPTER_CONFIG).read_text())
    parts = load_file(folder / ADAPTER_WEIGHTS)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    match spoil:
        case "no half":
            del parts[name.format("B")]
        case "another shape":
            parts[name.format("A")] = torch.zeros(4, 63)
        case "no such matrix":
            parts["base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight"] = torch.ones(1)
        case "embedding":
            parts["base_model.model.model.embed_tokens.lora_embedding_A"] = torch.ones(4, 211)
        case "nothing inside":
            parts.clear()
        case "cut short":
            (folder / ADAPTER_CONFIG).write_text("{")
            return
        case "no rank":
            del config["r"]
        case "rank zero":
            config["r"] = 0
        case "unknown base":
            config["base_model_name_or_path"] = "nobody/nothing"
        case (key, value):
            config[key] = value
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config))
    save_file(parts, folder / ADAPTER_WEIGHTS)


@pytest.mark.parametrize(
    "spoil, said",
    [
        ("no half", "lora_A.*lacks its other half"),
        ("another shape", r"A is \(4, 63\).*another model"),
        ("no such matrix", r"layers\.9.*the base has no matrix"),
        ("embedding", "lora_embedding_A.*wanted lora_A"),
        ("nothing inside", "holds no tensor"),
        (("init_lora_weights", "pissa"), "init_lora_weights 'pissa'"),
        (("alora_invocation_tokens", [3]), "alora_invocation_tokens"),
        ("cut short", "names no base model"),
        ("no rank", "KeyError: 'r'"),
        ("rank zero", "ZeroDivisionError"),
        ("unknown base", "belongs to nobody/nothing.*SmolLM2-135M-Instruct"),
        (("use_dora", True), "use_dora True.*merge it with peft"),
        (("peft_type", "IA3"), "peft_type 'IA3'"),
        (("modules_to_save", ["lm_head"]), "modules_to_save"),
        (("rank_pattern", {"q_proj": 2}), "rank_pattern"),
    ],
)
def test_bad_adapters(base, tmp_path, spoil, said):
    folder = tmp_path / "theirs"
    pefts(base, folder)
    spoilt(folder, spoil)
    with pytest.raises(UserError, match=said):
        open_model(folder)


def test_weights_that_are_missing(base, tmp_path):
    pefts(base, tmp_path / "theirs")
    (tmp_path / "theirs" / ADAPTER_WEIGHTS).unlink()
    with pytest.raises(UserError, match=f"{ADAPTER_WEIGHTS} is missing"):
        open_model(tmp_path / "theirs")


def test_the_command(base, tmp_path, monkeypatch, capsys):
    """Out as an adapter and in again as a whole folder; a model of another shape is refused."""
    model = changed(base)
    with torch.no_grad():
        model.norm.weight += 0.001
    save_pretrained(model, tmp_path / "run")
    out = str(tmp_path / "ours")
    words = ["export", str(tmp_path / "run"), out, "--adapter-of", str(base)]
    monkeypatch.setattr("sys.argv", [*words, "--rank", "64"])
    export.main()
    said = capsys.readouterr().out
    assert "rank 64, " in said and "left out: model.norm.weight\n" in said
    monkeypatch.setattr("sys.argv", ["export", out, str(tmp_path / "whole")])
    export.main()
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "whole").eval()
    with torch.no_grad():
        found = theirs(TOKENS).logits
    assert (found - logits(load_pretrained(out))).abs().max() < 1e-4

    shutil.copytree(base, tmp_path / "wider")
    config = json.loads((base / "config.json").read_text()) | dict(rms_norm_eps=0.1)
    (tmp_path / "wider" / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("sys.argv", [*words[:4], str(tmp_path / "wider")])
    with pytest.raises(UserError, match="models of two shapes"):
        export.main()
    monkeypatch.setattr("sys.argv", [*words, "--rank", "0"])
    with pytest.raises(UserError, match="--rank is 0"):
        export.main()


SHIPPED = sorted((ROOT / "adapters").glob("*/"))


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_what_is_shipped_is_small_and_fits_smollm2(folder):
    """Its matrices are SmolLM2-135M's (576 wide, 9 heads over 3, 1,536 in the feed-forward)."""
    assert (folder / ADAPTER_WEIGHTS).stat().st_size <= 5_000_000
    assert adapter_factor(folder) > 0
    assert (folder / ADAPTER_MARK).is_file()  # the command that made it may replace it
    config = json.loads((folder / ADAPTER_CONFIG).read_text())
    assert config["base_model_name_or_path"] == PUBLISHED["smollm2"].repository
    sizes = dict(q=(576, 576), k=(576, 192), v=(576, 192), o=(576, 576))
    sizes |= dict(gate=(576, 1536), up=(576, 1536), down=(1536, 576))
    found = load_file(folder / ADAPTER_WEIGHTS)
    for name, part in found.items():
        assert part.float().isfinite().all()
        inner, outer = sizes[name.split(".")[-3].removesuffix("_proj")]
        wanted = (config["r"], inner) if "lora_A" in name else (outer, config["r"])
        assert tuple(part.shape) == wanted
    assert len(found) == 2 * len(sizes) * len(config["layers_to_transform"])
