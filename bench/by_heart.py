"""Weights that have learnt some tasks' episodes by heart, for benches that need an agent which
acts: real episodes with calls, faults and answers, of all lengths, after a minute of training.
"""

import support.openmp  # before torch

import torch
import transformers
from torch.nn.utils.rnn import pad_sequence

from support.tokenizer import Tokenizer
from worlds.base import Task
from worlds.expert import solve_task

IGNORED = -100  # as transformers has it: a label without a loss


def learnt_by_heart(
    tasks: list[Task], tokenizer: Tokenizer, steps: int
) -> transformers.Qwen2ForCausalLM:
    """A Qwen2 of the toy's size after `steps` batches of 8 of the expert's episodes of the tasks;
    400 steps suffice for 64 tasks.
    """
    torch.manual_seed(0)
    model = transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(
            vocab_size=1024,
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=384,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
        )
    )
    texts, labels = [], []
    for task in tasks:
        messages = [{"role": "user", "content": task.request}, *solve_task(task)[0]]
        style = task.difficulty.style
        tokens, action_mask = tokenizer.encode_chat(messages, task.shown_tools(), style)
        texts.append(torch.tensor(tokens))
        labels.append(texts[-1].where(torch.tensor(action_mask), IGNORED))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        chosen = torch.randperm(len(texts), generator=generator)[:8].tolist()
        # padding stands at the right, where no token sees it
        tokens = pad_sequence([texts[i] for i in chosen], batch_first=True)
        wanted = pad_sequence([labels[i] for i in chosen], True, padding_value=IGNORED)
        loss = model(input_ids=tokens, labels=wanted).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 20, 1.2 * (steps - step) / steps)
        optimizer.step()
        optimizer.zero_grad()
    print(f"learnt by heart: loss {loss.item():.3f} after {steps} steps")
    return model.eval()
