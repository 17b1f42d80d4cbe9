"""Run the default suite as other x86-64 processors would compute: `make portable`.

Torch (MKL, oneDNN), NumPy (OpenBLAS, its own loops) and the C library choose their instructions by the processor,
and each can be told to do without some. `--variant NAME` runs one variant; all else is handed to pytest.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

PYTEST = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile"]


@dataclass(frozen=True)
class Variant:
    """A kind of processor: what switches the libraries to it.

    Attributes:
        about: which processors compute like this.
        environment: the switches.
        numpy_without: whether NumPy does without one of its sets of instructions.
        needs: sets of NumPy's one of which the machine must have.
    """

    about: str
    environment: dict[str, str]
    numpy_without: Callable[[str], bool]
    needs: tuple[str, ...] = ()


def wide(instructions: str) -> bool:
    """Return whether a set of NumPy's is one of 512 bits; its names changed with 2.4."""
    return instructions == "X86_V4" or instructions.startswith("AVX512")


VARIANTS = {
    "amd": Variant(
        "AVX-512, but not MKL's: AMD from Zen 4 on",
        {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "OPENBLAS_CORETYPE": "Zen"},
        lambda _: False,
        needs=("X86_V4", "AVX512F"),
    ),
    "avx2": Variant(
        "AVX2 and FMA: Intel since 2013, AMD since 2015",
        {
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "ATEN_CPU_CAPABILITY": "avx2",
            "OPENBLAS_CORETYPE": "Haswell",
        },
        wide,
        needs=("X86_V3", "AVX2"),
    ),
    "sse4": Variant(
        "SSE4.2 alone: older ones",
        {
            "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "ATEN_CPU_CAPABILITY": "default",
            "OPENBLAS_CORETYPE": "Nehalem",
            "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F",
        },
        lambda _: True,
    ),
    "compatible": Variant(
        "MKL's one path for every processor",
        {
            "MKL_CBWR": "COMPATIBLE",
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "ATEN_CPU_CAPABILITY": "default",
            "OPENBLAS_CORETYPE": "Prescott",
        },
        lambda _: True,
    ),
}


def numpy_sets() -> list[str]:
    """Return the sets of instructions that NumPy uses here and can do without."""
    config = cast("dict[str, dict[str, list[str]]]", np.show_config(mode="dicts"))
    return config["SIMD Extensions"].get("found", [])


def ran(variant: Variant, sets: list[str], arguments: list[str]) -> str:
    """Run the suite as a variant and return how it went, in words."""
    if not any(name.startswith(("X86", "SSE", "AVX")) for name in sets):
        return "skipped: NumPy has no x86-64 instructions to switch off here"
    if variant.needs and not set(variant.needs) & set(sets):
        return f"skipped: this processor has no {' or '.join(variant.needs)}"
    without = " ".join(name for name in sets if variant.numpy_without(name))
    environment = {**os.environ, **variant.environment, "NPY_DISABLE_CPU_FEATURES": without}
    begun_s = time.monotonic()
    code = subprocess.run([*PYTEST, *arguments], env=environment, check=False).returncode
    return f"{'passed' if code == 0 else f'FAILED ({code})'} in {time.monotonic() - begun_s:.0f} s"


def main() -> int:
    """Run the variants asked for and print a line for each; 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", action="append", choices=VARIANTS, help="only this one; may be repeated")
    chosen, arguments = parser.parse_known_args()
    sets, lines = numpy_sets(), []
    for name in chosen.variant or VARIANTS:
        print(f"== {name}: {VARIANTS[name].about}", flush=True)
        lines.append(f"{name:11}{ran(VARIANTS[name], sets, arguments):22}{VARIANTS[name].about}")
    print("\n".join(lines))
    return int(any("FAILED" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
