"""Pretrain what image generation runs on by default: a UNet on the digits 0 to 4, and a classifier of all ten.

    python scripts/pretrain_digits.py

writes fedsim/builtin/digits_model. Test images are used for neither. Weights are stored in half precision.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from denoiser_pretraining import Settings, grid_loss, train

from fedsim.builtin import digits
from fedsim.rng import seed_of
from fedsim.training.diffusion import classifier
from fedsim.training.diffusion import models as denoisers
from fedsim.training.diffusion import process as diffusion

UNET: Final = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "layers_per_block": 1,
    "block_out_channels": (24, 48),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 8,
    "norm_num_groups": 8,
}
SCHEDULE: Final = {"num_train_timesteps": 200, "beta_schedule": "squaredcos_cap_v2"}
SIGNATURE: Final = denoisers.Signature("UNet2DModel", 1, 8)


def tensors(digits_wanted: Sequence[int], *, test: bool) -> tuple[Any, Any]:
    """Return the images and labels of some digits, of the training or of the test part."""
    pixels, labels = digits.images()
    rows = np.isin(labels, digits_wanted) & (digits.is_test(labels) == test)
    return torch.from_numpy(pixels[rows]), torch.from_numpy(labels[rows])


def card(facts: dict[str, Any], command: str) -> str:
    """Return the model card."""
    losses = "\n".join(f"| {name} | {value:.4f} |" for name, value in facts["losses"].items())
    return f"""# The built-in image model of fedsim

A `UNet2DModel` of {facts["parameters"]:,} parameters (8 x 8 grey images, 24 and 48 channels, attention at 4 x 4) that
denoises the handwritten digits 0 to 4, its noise schedule (200 steps, cosine), and a classifier of all ten digits
({facts["classifier_parameters"]:,} parameters, 64 features). They exist so that federated LoRA of a diffusion model
can be tried at once and offline; they are good for nothing else.

**Data and credit.** *Optical Recognition of Handwritten Digits* by E. Alpaydin and C. Kaynak, UCI Machine Learning
Repository (https://doi.org/10.24432/C50P49), CC BY 4.0, as scikit-learn ships it (1,797 images, SHA-256 `{facts["sha256"][:16]}`).
Of each digit the last of every five images is test and was used for no training. The UNet saw {facts["images"]} images of
0 to 4, the classifier {facts["classifier_images"]} of all ten.

**Licence of the weights.** Apache-2.0, as fedsim.

**Training.** AdamW, learning rate {facts["lr"]} after {facts["warm_up"]} steps of warm-up, cosine to 0; {facts["steps"]:,} steps of {facts["batch"]} images, seed {facts["seed"]}, float32,
one thread: {facts["cpu_s"]:.0f} CPU seconds. What is stored is the moving average of the weights (decay {facts["ema"]}), in float16.
The classifier: {facts["epochs"]} epochs, {facts["classifier_cpu_s"]:.0f} CPU seconds; it is right on {facts["accuracy"]:.1%} of the test images.
torch {facts["torch"]}, diffusers {facts["diffusers"]}. Repeat with

    {command}

**Squared error** of the predicted noise, stored weights, 8 fixed timesteps and noises an image:

| images | error |
|---|---|
{losses}
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Train, write and score."""
    parser = argparse.ArgumentParser(description="Pretrain the built-in image model.")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent.parent / "fedsim" / "builtin" / "digits_model"
    )
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--warm-up", type=int, default=100)
    parser.add_argument("--ema", type=float, default=0.995)
    parser.add_argument("--epochs", type=int, default=30, help="of the classifier")
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args(argv))
    folder, epochs = options.pop("out"), options.pop("epochs")
    settings = Settings(**options)
    folder.mkdir(parents=True, exist_ok=True)
    diffusers = denoisers.libraries()
    torch.set_num_threads(1)

    images, labels = tensors(range(10), test=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(settings.seed, "classifier", "initial"))
        net = classifier.Classifier(1, 8, 10)
    began = time.process_time()
    unit = diffusion.unit(images, torch.float32)
    classifier.train(net, unit, labels, epochs=epochs, lr=3e-3, batch=64, seed=settings.seed)
    classifier_cpu_s = time.process_time() - began
    classifier.save(net, folder / "classifier.safetensors")
    stored = classifier.load(folder / "classifier.safetensors")
    test_images, test_labels = tensors(range(10), test=True)
    accuracy = classifier.accuracy(stored, diffusion.unit(test_images, torch.float32), test_labels)
    print(f"classifier: {accuracy:.2%} right")

    known, _ = tensors(digits.KNOWN, test=False)
    scheduler = diffusers.DDPMScheduler(**SCHEDULE)
    process = diffusion.Process.of(scheduler)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(settings.seed, "initial"))
        unet = diffusers.UNet2DModel(**UNET)
    began = time.process_time()
    averaged = train(unet, SIGNATURE, process, known, None, settings)
    cpu_s = time.process_time() - began
    unet.load_state_dict(averaged)
    unet.half().save_pretrained(folder)
    scheduler.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors writes for its owner only; a wheel is read by others

    again = diffusers.UNet2DModel.from_pretrained(folder, torch_dtype=torch.float32).eval()
    parts = {
        "0 to 4, training": tensors(digits.KNOWN, test=False),
        "0 to 4, test": tensors(digits.KNOWN, test=True),
        "5 to 9, test": tensors(digits.NEW, test=True),
    }
    pixels, every = digits.images()
    facts = {
        "parameters": sum(p.numel() for p in again.parameters()),
        "classifier_parameters": sum(p.numel() for p in stored.parameters()),
        "images": len(known),
        "classifier_images": len(images),
        "sha256": digits.data_hash(pixels, every),
        "losses": {
            name: grid_loss(again, SIGNATURE, process, part, None) for name, (part, _) in parts.items()
        },
        "accuracy": accuracy,
        "epochs": epochs,
        "cpu_s": cpu_s,
        "classifier_cpu_s": classifier_cpu_s,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        **vars(settings),
    }
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in vars(settings).items())
    text = card(facts, f"python scripts/pretrain_digits.py {flags} --epochs {epochs}")
    (folder / "MODEL_CARD.md").write_text(text, encoding="utf-8")
    (folder / "facts.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
