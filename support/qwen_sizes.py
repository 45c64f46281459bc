"""Qwen2.5's published shapes, as settings of the model: what loading its weights is compared with.

python model.py     the sizes, and what they cost
"""

from dataclasses import replace

from config import Model

_SMALL = Model(vocab_size=151_936, head_dim=128, rope_theta=1e6, norm_eps=1e-6, context=32_768)
_LARGE = replace(_SMALL, vocab_size=152_064, tied=False, context=131_072)
SIZES = {
    "0.5B": replace(
        _SMALL, width=896, layers=24, heads=14, kv_heads=2, head_dim=64, feed_forward=4864
    ),
    "1.5B": replace(_SMALL, width=1536, layers=28, heads=12, kv_heads=2, feed_forward=8960),
    "3B": replace(_SMALL, width=2048, layers=36, heads=16, kv_heads=2, feed_forward=11_008),
    "7B": replace(_LARGE, width=3584, layers=28, heads=28, kv_heads=4, feed_forward=18_944),
    "14B": replace(
        _LARGE, width=5120, layers=48, heads=40, kv_heads=8, feed_forward=13_824, norm_eps=1e-5
    ),
    "32B": replace(
        _LARGE, width=5120, layers=64, heads=40, kv_heads=8, feed_forward=27_648, norm_eps=1e-5
    ),
}
