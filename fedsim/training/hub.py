"""Models and tokenizers, by folder or by name on the Hugging Face hub; every failure in one sentence.

No telemetry, no progress bars. `HF_HOME` and `HF_HUB_OFFLINE` mean what they mean to Hugging Face.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from fedsim.errors import DataError, message
from fedsim.files.text_file import reason

_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_ROOT = re.compile(r"^(/|\\|~|\.|[A-Za-z]:)")


def is_hub_name(name: str) -> bool:
    """Tell whether a name can only be a hub name: `owner/name` or `name`, and nothing here is called so."""
    return bool(_NAME.fullmatch(name)) and not _ROOT.match(name) and not Path(name).exists()


def libraries() -> Any:
    """Return transformers, quiet and without telemetry."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _from(name: str, what: str, load: Callable[[], Any]) -> Any:
    """Load something of a model, translating what goes wrong."""
    folder = not is_hub_name(name)
    if folder:
        missing = "there is no such folder" if not Path(name).is_dir() else None
        if missing is None and not (Path(name) / "config.json").is_file():
            missing = "the folder holds no config.json"
        if missing:
            fix = "give a folder written by save_pretrained, a hub name such as openai-community/gpt2, or builtin"
            raise DataError(message("task.model", missing, got=name, fix=fix))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load()
    except Exception as problem:  # transformers has its own error types for impossible configurations
        if folder:
            reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
            fix = f"is it complete? its {what} must load with transformers' Auto classes"
            raise DataError(
                message("task.model", f"cannot load the {what}: {reason}", got=name, fix=fix)
            ) from problem
        why = "HF_HUB_OFFLINE is set" if _offline() else "is the name right, and the hub reachable?"
        fix = f"{why}; or give a local folder, or model: builtin"
        raise DataError(
            message("task.model", f"cannot get the {what} from the hub", got=name, fix=fix)
        ) from problem


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")


@lru_cache(maxsize=8)
def config(name: str) -> Any:
    """Return a causal language model's configuration.

    Raises:
        DataError: missing, unreadable, or not a causal language model.
    """
    transformers = libraries()
    settings = _from(name, "configuration", lambda: transformers.AutoConfig.from_pretrained(name))
    known = transformers.AutoModelForCausalLM._model_mapping  # noqa: SLF001  # the only list there is
    if type(settings) not in known:
        fix = "give a GPT-2-, Llama-, Qwen- or Gemma-like model"
        raise DataError(
            message("task.model", "is not a causal language model", got=settings.model_type, fix=fix)
        )
    return settings


def tokenizer(name: str) -> Any:
    """Return a model's tokenizer.

    Raises:
        DataError: missing, without words, or without any token that could end a text.
    """
    transformers = libraries()
    config(name)
    if not is_hub_name(name) and not any(next(Path(name).glob(kind), None) for kind in _TOKENIZER_FILES):
        raise _no_tokenizer(name)  # transformers would make an empty one
    loaded = _from(
        name, "tokenizer", lambda: _without_panic(transformers.AutoTokenizer.from_pretrained, name)
    )
    if not loaded.get_vocab().keys() - loaded.get_added_vocab().keys():
        raise _no_tokenizer(name)
    if end_of_text(loaded) is None:
        fix = "set eos_token in its tokenizer_config.json"
        raise DataError(message("task.model", "the tokenizer has no end-of-text token", got=name, fix=fix))
    return loaded


_TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges*", "*.model", "*.tiktoken", "*.spm", "tekken*", "spiece*")


def _without_panic(load: Callable[[str], object], name: str) -> object:
    """Call a loader; what goes wrong, also a panic in the Rust library, which is no Exception, is a ValueError."""
    try:
        return load(name)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as problem:
        raise ValueError(reason(problem)) from problem


def _no_tokenizer(name: str) -> DataError:
    fix = "copy tokenizer.json there, or write the model's tokenizer to it with save_pretrained"
    return DataError(message("task.model", "the folder holds no tokenizer", got=name, fix=fix))


def end_of_text(tokenizer: Any) -> int | None:
    """Return the id of `<eos>`, else of `<bos>`, which GPT-like models use for both."""
    eos: int | None = tokenizer.eos_token_id
    bos: int | None = tokenizer.bos_token_id
    return bos if eos is None else eos


def weights(name: str, dtype: str = "float32") -> Any:
    """Return the model in a dtype of torch (by name) and in evaluation mode, so that dropout is off."""
    transformers = libraries()
    import torch

    load = transformers.AutoModelForCausalLM.from_pretrained
    model = _from(name, "weights", lambda: load(name, dtype=getattr(torch, dtype)))
    model.config.use_cache = False
    return model.eval()


@lru_cache(maxsize=8)
def skeleton(name: str) -> Any:
    """Return the model without weights (on torch's meta device): every name and shape, no memory."""
    transformers = libraries()
    import torch

    settings = config(name)

    def build() -> Any:
        with torch.device("meta"):
            return transformers.AutoModelForCausalLM.from_config(settings)

    return _from(name, "architecture", build)


def class_names(part: Any) -> dict[str, list[str]]:
    """Return the names of the classes, by column, that a split of `datasets` gives."""
    return {column: kind.names for column, kind in part.features.items() if getattr(kind, "names", None)}


def longest(model: Any) -> int | None:
    """Return the most tokens that a model reads at once, if its configuration says so."""
    most: int | None = getattr(model.config, "max_position_embeddings", None)
    return most


def check_weights(name: str) -> None:
    """Raise a DataError if a folder holds no weights; a hub's are fetched by the first worker."""
    if is_hub_name(name):
        return
    kinds = ("model*.safetensors", "pytorch_model*.bin")
    if not any(any(Path(name).glob(kind)) for kind in kinds):
        fix = "copy model.safetensors there, or write the folder again with save_pretrained"
        raise DataError(message("task.model", "the folder holds no weights", got=name, fix=fix))
