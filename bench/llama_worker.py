"""llama.cpp's side of bench/real_speed.py: a process of its own, so that xllamacpp may live in an
environment of its own, and its threads rest while others are measured.

Reads one JSON object per line, {"prompt": token IDs, "tokens": how many}, and answers with
{"tokens": the greedy continuation, "read": seconds for the prompt, "decode": seconds for the rest},
the seconds as llama.cpp's own server counts them.

    ENVIRONMENT/bin/python bench/llama_worker.py MODEL.gguf THREADS CONTEXT
"""

import json
import sys
import urllib.request

import xllamacpp


def main() -> None:
    path, threads, context = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = context
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.warmup = True
    server = xllamacpp.Server(params)
    url = f"{server.listening_address}/completion"
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        request = dict(
            prompt=asked["prompt"],
            n_predict=asked["tokens"],
            temperature=0.0,
            ignore_eos=True,
            cache_prompt=False,  # else an equal prompt would not be read again
            return_tokens=True,
        )
        with urllib.request.urlopen(url, json.dumps(request).encode(), timeout=600) as response:
            said = json.load(response)
        timings = said["timings"]
        answer = {
            "tokens": said["tokens"],
            "read": timings["prompt_ms"] / 1000,
            "decode": timings["predicted_ms"] / 1000,
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
