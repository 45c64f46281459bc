"""Compile every shipped kernel configuration on any machine, for Hopper (sm_90) and, as what older
hardware gets, for sm_80: registers, spills, shared memory, instructions.

    python bench/hopper.py                        every configuration, one line of JSON each
    python bench/hopper.py forward bf16 sm_90     only those whose name holds all the words
    PYTHONPATH=FOLDER python bench/hopper.py      with the Triton in FOLDER, put there by
                                                  pip install --no-deps --target FOLDER triton==3.6

No GPU is used: Triton's wheel carries ptxas and the disassembler. A spill is a store to or a load
from a thread's local memory (STL, LDL); tma counts the copies of whole tiles by TMA.
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
POINTERS = {
    "DOCUMENTS": "*i32",
    "POSITIONS": "*i64",
    "LSE": "*fp32",
    "DELTA": "*fp32",
    "PARTIAL": "*fp32",
    "FAR": "*fp32",
}
OF_QUERIES = {"Q", "OUT", "DOUT", "DQ"}
OF_KEYS = {"K", "V", "LANDMARK_K", "LANDMARK_V", "DK", "DV"}
TARGETS = {"sm_90": (90, kernels.TILES), "sm_80": (80, kernels.SMALL_TILES)}
GROUP = 5  # Qwen2.5-32B: 40 query heads over 8 key-value heads


def signature(name: str, kind: str, d: int, tile: tuple, tma: bool) -> dict[str, str]:
    """Argument types of a kernel: tensors by their capital names, the rest 32-bit integers."""
    M, N, _, _ = tile
    types = {}
    for parameter in getattr(kernels, f"{name}_kernel").params:
        argument = parameter.name
        if parameter.is_constexpr:
            types[argument] = "constexpr"
        elif name == "decode" and argument in OF_QUERIES | OF_KEYS:
            types[argument] = "*fp32" if argument == "OUT" else f"*{kind}"
        elif argument in OF_QUERIES | OF_KEYS:
            count = M if argument in OF_QUERIES else N
            types[argument] = f"tensordesc<{kind}[1, 1, {count}, {d}]>" if tma else f"*{kind}"
        else:
            types[argument] = POINTERS.get(argument, "i32")
    return types


def compile_kernel(
    name: str, kind: str, d: int, packed: bool, tile: tuple[int, int, int, int], target: str
) -> dict:
    """Compile one configuration and count what matters; tile is (M, N, warps, stages)."""
    M, N, warps, stages = tile
    capability, _ = TARGETS[target]
    types = signature(name, kind, d, tile, tma=capability >= 90)
    constants = {"GROUP": GROUP, "M": M, "N": N, "D": d}
    if "DOCUMENTS" in types and not packed:
        types["DOCUMENTS"] = "constexpr"
        constants["DOCUMENTS"] = None
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
        source,
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": warps, "num_stages": stages},
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
        name=f"{name} {kind} d{d} {packing} {target} {M}x{N} {warps} warps {stages} stages",
        triton=triton.__version__,
        registers=int(re.search(r"REG:(\d+)", usage)[1]),
        spills=len(re.findall(r"\b(?:STL|LDL)\b", code)),
        shared=binary.metadata.shared,
        wgmma=ptx.count("wgmma.mma_async"),
        mma=len(re.findall(r"\bmma\.sync", ptx)),
        cp_async=len(re.findall(r"cp\.async\.(?:cg|ca)", ptx)),
        tma=ptx.count("cp.async.bulk.tensor"),
    )


def main() -> None:
    for target, (_, tiles) in TARGETS.items():
        for (name, size, d), tile in tiles.items():
            for kind in (kind for kind, bytes_each in TYPES.items() if bytes_each == size):
                for packed in (False, True) if name != "decode" else (False,):
                    packing = "packed" if packed else "plain"
                    words = (name, kind, f"d{d}", packing, target)
                    if all(word in words for word in sys.argv[1:]):
                        record = compile_kernel(name, kind, d, packed, tile, target)
                        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
