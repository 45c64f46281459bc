"""Compile every shipped kernel configuration for Hopper (sm_90), on any machine: registers, spills,
shared memory, instructions.

    python bench/hopper.py                        every configuration, one line of JSON each
    python bench/hopper.py forward bf16           only those whose name holds all the words
    PYTHONPATH=FOLDER python bench/hopper.py      with the Triton in FOLDER, put there by
                                                  pip install --no-deps --target FOLDER triton==3.6

No GPU is used: Triton's wheel carries ptxas and the disassembler. A spill is a store to or a load
from a thread's local memory (STL, LDL).
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fast import kernels

TYPES = {"bf16": 2, "fp16": 2, "fp32": 4}
FLOAT32 = {"LSE", "DELTA", "PARTIAL", "FAR"}
GROUP = 5  # Qwen2.5-32B: 40 query heads over 8 key-value heads


def signature(name: str, kind: str) -> dict[str, str]:
    """Argument types of a kernel: tensors by their capital names, the rest 32-bit integers."""
    function = getattr(kernels, f"{name}_kernel")
    types = {}
    for parameter in function.params:
        if parameter.is_constexpr:
            types[parameter.name] = "constexpr"
        elif parameter.name == "DOCUMENTS":
            types[parameter.name] = "*i32"
        elif parameter.name == "POSITIONS":
            types[parameter.name] = "*i64"
        elif parameter.name in FLOAT32 or (name == "decode" and parameter.name == "OUT"):
            types[parameter.name] = "*fp32"
        elif parameter.name.isupper() and parameter.name not in ("T", "H"):
            types[parameter.name] = f"*{kind}"
        else:
            types[parameter.name] = "i32"
    return types


def compile_kernel(
    name: str, kind: str, d: int, packed: bool, tile: tuple[int, int, int, int]
) -> dict:
    """Compile one configuration and count what matters; tile is (M, N, warps, stages)."""
    M, N, warps, stages = tile
    types = signature(name, kind)
    constants = {
        "GROUP": GROUP,
        "PACKED": packed,
        "M": M,
        "N": N,
        "D": d,
        "PRECISION": kernels.PRECISION,
    }
    constants = {key: value for key, value in constants.items() if key in types}
    order = list(types)
    aligned = {
        (order.index(key),): [["tt.divisibility", 16]]
        for key, value in types.items()
        if value.startswith("*")
    }
    source = ASTSource(
        fn=getattr(kernels, f"{name}_kernel"),
        signature=types,
        constexprs={(order.index(k),): v for k, v in constants.items()},
        attrs=aligned,
    )
    binary = triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps, "num_stages": stages}
    )
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage = subprocess.run(
            [tools / "cuobjdump", "-res-usage", file.name],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        code = subprocess.run(
            [tools / "nvdisasm", "-c", file.name], capture_output=True, text=True, check=True
        ).stdout
    ptx = binary.asm["ptx"]
    packing = "packed" if packed else "plain"
    return dict(
        name=f"{name} {kind} d{d} {packing} {M}x{N} {warps} warps {stages} stages",
        triton=triton.__version__,
        registers=int(re.search(r"REG:(\d+)", usage)[1]),
        spills=len(re.findall(r"\b(?:STL|LDL)\b", code)),
        shared=binary.metadata.shared,
        wgmma=ptx.count("wgmma.mma_async"),
        mma=len(re.findall(r"\bmma\.sync", ptx)),
        cp_async=len(re.findall(r"cp\.async\.(?:cg|ca|bulk)", ptx)),
    )


def main() -> None:
    for (name, size, d), tile in kernels.TILES.items():
        for kind in (kind for kind, bytes_each in TYPES.items() if bytes_each == size):
            for packed in (False, True) if name != "decode" else (False,):
                words = f"{name} {kind} d{d}{' packed' if packed else ' plain'}".split()
                if all(word in words for word in sys.argv[1:]):
                    print(json.dumps(compile_kernel(name, kind, d, packed, tile)), flush=True)


if __name__ == "__main__":
    main()
