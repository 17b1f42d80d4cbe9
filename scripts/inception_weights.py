"""Turn the original Inception weights of FID into the file that `task.features.weights` takes.

    python scripts/inception_weights.py pt_inception-2015-12-05-6726825d.pth inception.safetensors

The first file is a release asset of mseitzer/pytorch-fid (91 MB). Its SHA-256 is checked and kept in the second one:
only then is a distance called FID.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch
from safetensors.torch import save_file

from fedsim.training.diffusion.inception import ORIGINAL, Inception


def main() -> None:
    """Check, convert, write."""
    parser = argparse.ArgumentParser(description="Convert FID's Inception weights to safetensors.")
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    digest = hashlib.sha256(given.source.read_bytes()).hexdigest()
    if not digest.startswith(ORIGINAL):
        raise SystemExit(f"{given.source}: SHA-256 {digest[:8]}..., the original's begins with {ORIGINAL}")
    tensors = torch.load(given.source, map_location="cpu", weights_only=True)
    wanted = {name for name in Inception().state_dict() if not name.endswith("num_batches_tracked")}
    if missing := sorted(wanted - tensors.keys()):
        raise SystemExit(f"{given.source}: lacks {', '.join(missing[:3])}")
    kept = {name: tensors[name].contiguous() for name in sorted(wanted)}
    save_file(kept, given.out, metadata={"format": "pt", "source_sha256": digest})
    print(given.out)


if __name__ == "__main__":
    main()
