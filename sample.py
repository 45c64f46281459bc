"""Continue a prompt, or let an agent act, with a run of ours or with published weights, and watch.

    python sample.py --prompt "def "                                       token by token
    python sample.py --model smollm2 --chat --temperature 0 --prompt "Why is the sky blue?"
    python sample.py --model ~/models/Qwen2.5-0.5B-Instruct --chat --prompt "What is a landmark?"
    python sample.py --show-gate --prompt "..."                            the gate, as colours

    python sample.py --think --world api --task 3                          an agent, step by step
    python sample.py --think --world api --task 3 --html trace.html        the same as a page
    python sample.py --think --tools examples/weather.py --prompt "..."    with tools of your own
    python sample.py --think --tools tools.json --prompt "..."             you type what tools say
    python sample.py --case recovery --model smollm2                       a case of the paper

--json writes the agent's trace as data, --picture the coloured prompt as a PNG. --chat uses a
folder's own chat template. Of its generation_config.json the stop tokens are read; temperature and
top-p are this program's own settings.
"""

import codecs
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import support.openmp  # before torch

import torch

from config import Eval, Sample, UserError
from fast.graphs import fastest_step
from fast.thinking import think
from generate import generate, read_token
from mch import ThinkingHeads
from model import SAGE
from support import chat_template, checkpoint, machine, provenance, settings
from support import tokenizer as tokenizers
from support.gate_picture import coloured_text, draw_gates, prose_shares, token_texts
from support.pretrained import is_pretrained, load_pretrained
from support.tokenizer import Tokenizer
from support.trace_data import trace_of
from support.trace_page import page_of
from support.trace_text import TracePrinter
from think import Thinking
from worlds.base import Task
from worlds.difficulty import Difficulty
from worlds.tasks import Tasks
from worlds.extras.cases import judgement_of, tasks_of_case
from worlds.extras.terminal import task_of
from worlds.extras.toolbox import module_behind, task_with_tools, tools_of_file
from worlds.tools import check_tools, openai_tools


def load_model(sample: Sample) -> tuple[SAGE, Tokenizer]:
    """Model and tokenizer of a run or of published weights, with the window that is asked for."""
    device = machine.pick_device(sample.device)
    dtype = getattr(torch, sample.dtype)
    if is_pretrained(sample.run):
        model = load_pretrained(sample.run, dtype, device)
        name = sample.run
    else:
        model, config, _ = checkpoint.load_run(sample.run, dtype, device)
        name = config.data.tokenizer
    model.config.window = sample.window or model.config.window
    model.config.landmark_stride = sample.landmark_stride or model.config.landmark_stride
    return model, checkpoint.tokenizer_of(sample.run, name)


# ------------------------------------------------------------------------------------ continuations


def continue_prompt(sample: Sample, model: SAGE, tokenizer: Tokenizer) -> None:
    """Print continuations of the prompt, the first one token by token."""

    # -- the prompt
    if sample.chat:
        messages = [dict(role="user", content=sample.prompt)]
        if not is_pretrained(sample.run):  # published weights have their template's own
            messages.insert(0, dict(role="system", content=tokenizers.STANDARD_PROMPT))
        prompt = chat_template.prompt_tokens(tokenizer, messages)
        echo = ""
    else:
        prompt = [*tokenizer.start, *tokenizer.encode(sample.prompt)]
        echo = tokenizers.printable(sample.prompt)

    # -- generate and print: a character's bytes may be spread over tokens, so it is printed when
    # the incremental decoder has all of them
    characters = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def print_token(row: int, token: int) -> None:
        if row == 0:
            text = characters.decode(tokenizer.decode_bytes([token]))
            print(tokenizers.printable(text), end="", flush=True)

    compiling = sample.compile == "on"
    if sample.compile == "auto" and sample.tokens >= 1000:
        compiling = machine.can_compile(next(model.parameters()).device.type)
    print(echo, end="", flush=True)
    began = time.perf_counter()
    continuations = generate(
        model,
        [prompt] * sample.samples,
        sample.tokens,
        sample.temperature,
        sample.top_p,
        stop=tokenizer.stop,
        seed=sample.seed,
        step=fastest_step(model, read_token, compile=compiling),
        on_token=print_token,
    )
    seconds = time.perf_counter() - began
    print(characters.decode(b"", final=True))

    # -- the others, and how fast it went
    for tokens in continuations[1:]:
        print(f"{'-' * 20}\n{echo}{tokenizers.printable(tokenizer.decode(tokens))}")
    sampled = sum(map(len, continuations))
    rate = sampled / max(seconds, 1e-9)
    print(f"[{sampled} tokens in {seconds:.1f} s, {rate:.0f} tokens/s]", file=sys.stderr)


def show_gate(sample: Sample, model: SAGE, tokenizer: Tokenizer) -> None:
    """Print the prompt, each token on its gate's colour; with `picture` also draw it as a PNG."""
    if model.config.embedding != "split":
        raise UserError(
            "this model has one plain embedding and no gate; "
            "--show-gate needs model.embedding split"
        )
    tokens = tokenizer.encode(sample.prompt)
    texts = token_texts(tokens, tokenizer)
    gates = prose_shares(model, tokens)
    print(coloured_text(texts, gates))
    if sample.picture:
        draw_gates(texts, gates, Path(sample.picture))
        print(f"picture: {sample.picture}")


# ----------------------------------------------------------------------------------------- an agent


def task_for(sample: Sample, style: str) -> Task:
    """The task to be played: one of a world, or the prompt with the tools of a file: functions of
    a Python file, or schemas, which may name the Python file behind them.

    Raises UserError for a file that holds no tools.
    """
    if not sample.tools:
        difficulty = Difficulty(
            style=style,
            fault_rate=sample.fault_rate,
            names=sample.names,
            request_wording=sample.wording,
        )
        return Tasks("validation", Eval.seed, [sample.world or "api"], difficulty)[sample.task]
    path = Path(settings.absolute(sample.tools))
    if path.suffix == ".py":
        return task_with_tools(sample.prompt, tools_of_file(path), path, style)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read as JSON ({error}); "
            "wanted a Python file, or a list of tools in OpenAI's or MCP's format"
        ) from None
    tools = openai_tools(found)
    if faults := check_tools(tools):
        raise UserError(
            f'{path} is no list of tools: {faults[0].message}; wanted [{{"type": "function", '
            '"function": {"name": ..., "description": ..., '
            '"parameters": a JSON Schema of type object}}]'
        )
    if module := module_behind(path, found, tools):
        return task_with_tools(sample.prompt, tools, module, style)
    return task_of(sample.prompt, tools, style)


def act(sample: Sample, model: SAGE, tokenizer: Tokenizer) -> None:
    """An episode of the task that is asked for, or of each task of a case."""
    if sample.case and not sample.think:
        sample.thinking.mode = "fast"
    device = str(next(model.parameters()).device)
    fast = sample.thinking.mode == "fast"  # which asks no head
    if is_pretrained(sample.run) or (fast and not checkpoint.has_heads(sample.run)):
        heads = ThinkingHeads(model.config).to(device)
    else:
        dtype = getattr(torch, sample.dtype)
        heads = checkpoint.load_heads(sample.run, model.config, device, dtype)
    if not sample.case:
        return play(sample, model, heads, tokenizer, task_for(sample, tokenizer.style))
    for number, task in enumerate(tasks_of_case(sample.case, tokenizer.style)):
        html, data = (numbered(path, number) for path in (sample.html, sample.json))
        play(replace(sample, html=html, json=data), model, heads, tokenizer, task)


def numbered(path: str, number: int) -> str:
    """The file of a case's episode `number`, from 0: trace.html, trace-1.html, …"""
    if number == 0 or path in ("", "-"):
        return path
    return str(Path(path).with_stem(f"{Path(path).stem}-{number}"))


def play(
    sample: Sample, model: SAGE, heads: ThinkingHeads, tokenizer: Tokenizer, task: Task
) -> None:
    """One episode with its decisions, shown as they are made; of a case, judged at its end.

    The files are written whole after every step, and so are there when it is interrupted.
    """
    note = ""
    if not heads.trained:
        note = (
            "the heads are untrained: confidences and the gate's γ are ½ whatever they see, "
            "so that likelihood and the decoder's own ICS alone choose between candidates"
        )
    if task.world == "terminal.Terminal":
        sample.thinking.patience = 0.0  # people type slowly
    printer = TracePrinter(coloured=sys.stdout.isatty() and "NO_COLOR" not in os.environ)

    def watch(thinking: Thinking) -> None:
        trace = trace_of(thinking, model, heads, tokenizer, sample.thinking, note=note)
        rollout = thinking.rollout
        if sample.case and rollout.ended:
            answer = rollout.messages[-1] if rollout.ended == "answer" else ""
            trace["judgement"] = judgement_of(task, rollout.log, answer)
        data = json.dumps(trace, ensure_ascii=False)
        if sample.html:
            provenance.replace(Path(sample.html).expanduser(), page_of(trace))
        if sample.json not in ("", "-"):
            provenance.replace(Path(sample.json).expanduser(), data)
        if sample.json != "-":
            printer.show(trace)
        elif trace["ended"]:
            print(data)

    think(model, heads, tokenizer, [task], sample.thinking, seed=sample.seed, watch=watch)
    for path in (sample.html, sample.json):
        if path not in ("", "-"):
            print(f"written: {path}", file=sys.stderr)


def main() -> None:
    sample = settings.sample_from_command_line()
    model, tokenizer = load_model(sample)
    if sample.think or sample.case:
        act(sample, model, tokenizer)
    elif sample.show_gate:
        show_gate(sample, model, tokenizer)
    else:
        continue_prompt(sample, model, tokenizer)


if __name__ == "__main__":
    settings.run_script(main)
