"""A small agent that acts: it has learnt a few of the expert's episodes by heart in some seconds,
with heads that know nothing but are far from ½.
"""

import zlib
from functools import cache

import torch

from support import tokenizer as tokenizers
from config import Model
from support.packing import pack
from worlds.expert import solve_task
from losses import cross_entropy
from mch import ThinkingHeads
from model import SAGE
from worlds.difficulty import Difficulty
from worlds.tasks import draw_task

SHAPE = Model(
    vocab_size=1024,
    width=64,
    layers=2,
    heads=2,
    kv_heads=1,
    head_dim=32,
    feed_forward=128,
    context=640,
    previous_token=True,
)
TOY = tokenizers.toy()
TASKS = [
    draw_task(world, 3, index, Difficulty(fault_rate=0.5, special=0.0))
    for index in range(2)
    for world in ("api", "shell", "math")
]
TASKS[1] = draw_task(
    "shell", 3, 0, Difficulty(fault_rate=1.0, fault_kinds=("timeout",), special=0.0)
)  # one whose tool fails once
KNOWN = 3  # of them, the first ones


@cache
def agent(steps: int = 90) -> tuple[SAGE, ThinkingHeads]:
    """Model and heads after some steps on the known TASKS; not for training further, since everyone
    gets the same ones.
    """
    model, heads = SAGE(SHAPE), ThinkingHeads(SHAPE)
    examples = [
        TOY.encode_chat(
            [{"role": "user", "content": task.request}, *solve_task(task)[0]],
            task.shown_tools(),
            "compact",
        )
        for task in TASKS[:KNOWN]
    ]
    packed = pack(examples, 640, SHAPE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0, betas=(0.9, 0.99))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 5e-3 * min(
            1.0, (step + 1) / 10, 1.2 * (steps - step) / steps
        )
        loss = cross_entropy(
            model.hidden(packed.tokens, packed.documents),
            model.embedding.text.weight,
            packed.targets,
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        for name, p in heads.named_parameters():
            if p.ndim > 0 and "temperature" not in name:
                # its own numbers, whatever the shapes of the others
                generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
                p.add_(0.2 * torch.randn(p.shape, generator=generator))
        heads["gate"].out.bias.fill_(-5)  # shut at τ = ½
    return model.eval(), heads.eval()
