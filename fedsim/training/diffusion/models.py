"""Diffusion models of diffusers, by folder or hub name; every failure in one sentence.

A model is a folder with `config.json` and weights, or a pipeline's with `unet/` or `transformer/`; its
noise schedule lies beside it (`scheduler_config.json` or `scheduler/`). Images are what it denoises:
models of latents need an autoencoder and are refused.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from fedsim.blame import described
from fedsim.errors import DataError, message
from fedsim.training.hub import check_reachable, is_hub_name
from fedsim.training.loading import checkpoint, safety

CLASSES = ("UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
PARTS = ("unet", "transformer")
"""Subfolders of a pipeline that hold what denoises."""
WEIGHTS = ("diffusion_pytorch_model*.safetensors", "diffusion_pytorch_model*.bin")
"""Files of weights in a folder; the second are read where `FEDSIM_ALLOW_PICKLE` asks for it."""
COLOURS = {1: "L", 3: "RGB"}
"""Channels of an image, as PIL names them."""
FIX = "give a folder written by save_pretrained, a hub name such as google/ddpm-cifar10-32, or builtin"


@dataclass(frozen=True)
class Signature:
    """How a denoiser is called.

    Attributes:
        kind: which of `CLASSES`.
        channels, size: of the images, which are square.
        table: classes that it has embeddings for; 0 if it takes none.
        code: width of a class code given as cross-attention context; 0 if it takes none.
    """

    kind: str
    channels: int
    size: int
    table: int = 0
    code: int = 0

    @property
    def takes_classes(self) -> bool:
        """Whether the model can be told which class to denoise."""
        return bool(self.table or self.code)

    @property
    def classes(self) -> int:
        """Most classes that can be told apart: each has a row of the table, and a place in the code."""
        return min((n for n in (self.table, self.code) if n), default=0)

    @property
    def needs_class(self) -> bool:
        """Whether it cannot be run without a class; a DiT has a null class, a context may be 0."""
        return bool(self.table) and self.kind != "DiTTransformer2DModel"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        return self.channels, self.size, self.size


def libraries() -> Any:
    """Return diffusers, quiet and without telemetry."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import diffusers
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    return diffusers


@lru_cache(maxsize=8)
def config(name: str) -> dict[str, Any]:
    """Return a denoiser's configuration, `subfolder` included where the model lies in one.

    Raises:
        DataError: missing, unreadable, or not one of `CLASSES`.
    """
    folder = not is_hub_name(name)
    if folder and not Path(name).is_dir():
        what = "is a file, not a folder" if Path(name).is_file() else "there is no such folder"
        raise DataError(message("task.model", what, got=name, fix=FIX))
    if not folder:
        check_reachable(name)
    settings, first = None, None
    for part in (None, *PARTS):
        if folder and not safety.described(Path(name) / (part or ""), name):
            continue
        try:
            raw = libraries().UNet2DModel.load_config(name, subfolder=part)
        except Exception as problem:  # the hub client has no common base class
            first = first or problem
            continue
        if not isinstance(raw, dict):
            continue
        if raw.get("_class_name") in CLASSES:
            settings = {**raw, "subfolder": part}
            break
        settings = settings or raw
    if settings is None and folder:
        raise DataError(message("task.model", "the folder holds no config.json", got=name, fix=FIX))
    if settings is None:
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
        why = "HF_HUB_OFFLINE is set" if offline else "is the name right, and the hub reachable?"
        what, fix = "cannot get the configuration from the hub", f"{why}; or give a local folder"
        raise DataError(message("task.model", what, got=name, fix=fix)) from first
    if settings.get("_class_name") not in CLASSES:
        got = settings.get("_class_name") or settings.get("model_type") or "no _class_name"
        what = f"is no denoiser of images that fedsim knows ({', '.join(CLASSES)})"
        raise DataError(message("task.model", what, got=got, fix=FIX))
    safety.check_settings(settings, name)
    return settings


@lru_cache(maxsize=8)
def signature(name: str) -> Signature:
    """Return how a denoiser is called.

    Raises:
        DataError: not a denoiser, or one of latents, of images that are not square, or told what images have not.
    """
    raw = dict(skeleton(name).config)
    kind = str(config(name)["_class_name"])
    size, channels, out = raw["sample_size"], raw["in_channels"], raw.get("out_channels")
    if isinstance(size, list | tuple) and size and all(side == size[0] for side in size):
        size = size[0]
    if not _is_count(size):
        fix = "set sample_size in its config.json to the pixels of a side"
        raise DataError(message("task.model", "its images are not square", got=raw["sample_size"], fix=fix))
    if not _is_count(channels) or channels not in COLOURS:
        what = f"it denoises {channels} channels, so latents: only models of grey or RGB images are trained"
        raise DataError(message("task.model", what, got=name, fix="give a model with in_channels 1 or 3"))
    if out is not None and (not _is_count(out) or out < channels):
        what = f"it reads {channels} channels and predicts only {out}"
        raise DataError(message("task.model", what, got=name, fix="give a model with as many out_channels"))
    if raw.get("class_embed_type"):
        what = f"it is told more than a class (class_embed_type {raw['class_embed_type']})"
        fix = "give a model with num_class_embeds alone, or without classes"
        raise DataError(message("task.model", what, got=name, fix=fix))
    table, code = raw.get("num_class_embeds") or 0, 0
    if kind == "DiTTransformer2DModel":
        table = raw["num_embeds_ada_norm"] or 0
    if kind == "UNet2DConditionModel":
        code = raw["cross_attention_dim"]
        if not isinstance(code, int) or raw.get("encoder_hid_dim") or raw.get("addition_embed_type"):
            what = "it is conditioned on more than a context of one width, which only its own pipeline gives"
            raise DataError(
                message("task.model", what, got=name, fix="give a model with plain cross attention")
            )
    return Signature(kind, channels, size, int(table), int(code))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


@lru_cache(maxsize=8)
def skeleton(name: str) -> Any:
    """Return the model without weights (on torch's meta device): every name and shape, no memory."""
    import torch

    raw = config(name)
    kind = getattr(libraries(), raw["_class_name"])

    def build() -> Any:
        with torch.device("meta"):
            return kind.from_config({k: v for k, v in raw.items() if k != "subfolder"}).eval()

    return translated(name, "architecture", build)


def weights(name: str, dtype: str = "float32") -> Any:
    """Return the model in a dtype of torch (by name) and in evaluation mode, so that dropout is off.

    Raises:
        DataError: weights are missing, of other shapes or not finite.
    """
    import torch

    raw = config(name)
    checkpoint.check_stored(Path(name) / (raw["subfolder"] or ""), name)
    load = partial(
        getattr(libraries(), raw["_class_name"]).from_pretrained,
        name,
        subfolder=raw["subfolder"],
        torch_dtype=getattr(torch, dtype),
        low_cpu_mem_usage=False,
        use_safetensors=safety.only_safetensors(),
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are refused below, by name
    )
    model, info = translated(name, "weights", load)
    checkpoint.check_loaded(model, info, name)
    checkpoint.check_names(model, skeleton(name), name)
    return model.eval()


def check_weights(name: str) -> None:
    """Raise a DataError if a folder holds no weights or not all of its files; a hub's are fetched by the first worker."""
    if not is_hub_name(name):
        folder = Path(name) / (config(name)["subfolder"] or "")
        fix = "copy diffusion_pytorch_model.safetensors there, or write the folder again with save_pretrained"
        checkpoint.check_files(folder, WEIGHTS, name, fix)


@lru_cache(maxsize=8)
def schedule(name: str, prediction: Literal["auto", "epsilon", "v_prediction", "sample"]) -> Any:
    """Return the noise schedule that lies beside a model, as a `DDPMScheduler` on the CPU.

    Args:
        name: of the model.
        prediction: what the model predicts; `auto`: as the schedule says.

    Raises:
        DataError: there is none, or it is not a variance-preserving one with betas and one of `PREDICTIONS`.
    """
    diffusers, settings = libraries(), None
    for part in ("scheduler", None):
        try:
            settings = settings or diffusers.DDPMScheduler.load_config(name, subfolder=part)
        except Exception:  # noqa: S112  # the next place is tried, and the last failure is told below
            continue
    if settings is None:
        fix = "save one there: DDPMScheduler(num_train_timesteps=1000).save_pretrained(FOLDER)"
        what = "no noise schedule lies beside it (scheduler_config.json)"
        raise DataError(message("task.model", what, got=name, fix=fix))
    if not isinstance(settings, dict) or "beta_schedule" not in settings:
        what = f"its noise schedule is a {_kind(settings)}, which has no betas"
        raise DataError(message("task.model", what, got=name, fix="give a DDPM- or DDIM-like model"))
    if prediction != "auto":
        settings = {**settings, "prediction_type": prediction}
    says = settings.get("prediction_type", PREDICTIONS[0])
    if not isinstance(says, str) or says not in PREDICTIONS:
        what, fix = "its noise schedule asks for another prediction", f"one of {', '.join(PREDICTIONS)}"
        raise DataError(message("task.model", what, got=says, fix=f"set task.prediction to {fix}"))
    made = translated(name, "noise schedule", lambda: diffusers.DDPMScheduler.from_config(settings))
    shares, steps = made.alphas_cumprod, made.config.num_train_timesteps
    if tuple(shares.shape) != (steps,) or not bool(((shares >= 0) & (shares <= 1)).all()):
        what = "its noise schedule does not keep a share of the image between 0 and 1 at every step"
        raise DataError(message("task.model", what, got=name, fix="give betas between 0 and 1"))
    return made


def _kind(settings: Any) -> str:
    return str(settings.get("_class_name")) if isinstance(settings, dict) else type(settings).__name__


def translated(name: str, what: str, load: Callable[[], Any]) -> Any:
    """Load something of a model; what diffusers raises becomes a DataError of one sentence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load()
    except Exception as problem:  # diffusers has its own error types for impossible configurations
        reason = described(problem)
        fix = "is it complete? diffusers must load it with from_pretrained"
        raise DataError(
            message("task.model", f"cannot load the {what}: {reason}", got=name, fix=fix)
        ) from problem
