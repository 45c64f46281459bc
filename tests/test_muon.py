"""Muon beside torch's own."""

import torch

from fast.muon import Muon, orthogonalise


def test_steps_equal_torchs_muon():
    """Same parameters, same gradients, three steps: torch computes in bfloat16, so ours does here
    too; the difference is its rounding.
    """
    generator = torch.Generator().manual_seed(0)
    ours = [
        torch.nn.Parameter(torch.randn(shape, generator=generator))
        for shape in ((16, 16), (16, 16), (8, 24), (24, 8))
    ]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    start = [p.detach().clone() for p in ours]
    one = Muon(ours, lr=0.02, weight_decay=0.1)
    two = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.95)
    for _ in range(3):
        for p, q in zip(ours, theirs):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        one.step(), two.step()
    for p, q, s in zip(ours, theirs, start):
        assert (p - q).norm() < 0.05 * (q - s).norm()


def test_orthogonalise_keeps_directions_and_levels_sizes():
    """U S Vᵀ → roughly U Vᵀ: singular values near 1, singular vectors as they were."""
    x = torch.randn(3, 20, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    assert s.max() / s.min() > 4
    for y, expected in ((orthogonalise(x), u @ vt), (orthogonalise(x.mT), (u @ vt).mT)):
        values = torch.linalg.svdvals(y)
        assert values.min() > 0.6
        assert values.max() < 1.3
        assert (y - expected).norm() / expected.norm() < 0.25
