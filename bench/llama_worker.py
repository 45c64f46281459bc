"""llama.cpp's side of bench/real_speed.py: a process of its own, so that llama-cpp-python may live
in an environment of its own, and its threads rest while others are measured.

Reads one JSON object per line, {"prompt": token IDs, "tokens": how many}, and answers with
{"tokens": the greedy continuation, "read": seconds for the prompt, "decode": seconds for the rest}.

    ENVIRONMENT/bin/python bench/llama_worker.py MODEL.gguf THREADS CONTEXT
"""

import json
import sys
import time

from llama_cpp import Llama


def main() -> None:
    path, threads, context = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    llama = Llama(
        path,
        n_ctx=context,
        n_batch=512,
        n_threads=threads,
        n_threads_batch=threads,
        n_gpu_layers=0,
        verbose=False,
    )
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.perf_counter()
        continuation = []
        for token in llama.generate(asked["prompt"], temp=0.0, repeat_penalty=1.0, reset=True):
            if not continuation:
                first = time.perf_counter()
            continuation.append(token)
            if len(continuation) == asked["tokens"]:
                break
        ended = time.perf_counter()
        answer = {"tokens": continuation, "read": first - began, "decode": ended - first}
        print(json.dumps(answer), flush=True)
        llama.reset()  # else an equal prompt would not be read again


if __name__ == "__main__":
    main()
