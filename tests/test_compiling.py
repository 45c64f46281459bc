"""The compiled losses of train.py and distill.py are one graph each: a break costs speed and says
nothing.
"""

import torch

from config import Model
from fast.compiling import product_dtype
from model import SAGE
from test_distill import lineage
from forked_script import run
from test_train import settings

# what runs the graph has no part in how a function is traced; Inductor would take a minute
ONE_GRAPH = """
import torch
whole = torch.compile
def compiled(function, **options):
    print("in one graph")
    return whole(function, fullgraph=True, backend="eager")
torch.compile = compiled
"""


def test_pretrainings_loss_is_one_graph(settings):
    """In bf16, with the gate's loss beside the cross-entropy."""
    words = ["--train.compile", "on", "--train.dtype", "bfloat16", "--train.steps", "2"]
    done = run("train.py", settings("run"), *words, before=ONE_GRAPH)
    assert done.returncode == 0 and "in one graph" in done.stdout, done.stderr[-2000:]


def test_distillations_loss_is_one_graph(lineage):
    """Packed documents over several windows, weights, and a teacher's logits."""
    file, folder = lineage()
    words = ["--stage", "distill", "--distill.compile", "on", "--distill.steps", "2"]
    words += ["--distill.kl", "0.5", "--distill.kl-teacher", str(folder / "base")]
    done = run("distill.py", file, *words, before=ONE_GRAPH)
    assert done.returncode == 0 and "in one graph" in done.stdout, done.stderr[-2000:]


def test_products_dtype_is_the_products():
    x = torch.ones(2, 2)
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            assert product_dtype(x) == (x @ x).dtype
    assert product_dtype(x.double()) == torch.float64
    assert product_dtype(torch.ones(2, device="meta")) == torch.float32


def test_a_norm_is_equation_2():
    """To the bit in float32; in bf16 it is rounded once, where Qwen2's code rounds twice."""
    norm = SAGE(Model(norm_eps=1e-6)).norm
    x = 5 * torch.randn(7, norm.weight.numel(), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        norm.weight.copy_(1 + 0.3 * torch.randn(norm.weight.shape))
        defined = norm.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
        assert torch.equal(norm(x), defined)
        rounded = norm.bfloat16()(x.bfloat16()).float()
        torch.testing.assert_close(rounded, defined, rtol=2**-6, atol=1e-3)
