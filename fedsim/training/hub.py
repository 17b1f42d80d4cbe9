"""Models and tokenizers, by folder or by name on the Hugging Face hub; every failure in one sentence.

No telemetry, no progress bars. `HF_HOME` and `HF_HUB_OFFLINE` mean what they mean to Hugging Face.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsim.blame import described
from fedsim.errors import DataError, message, nearest
from fedsim.files.text_file import reason
from fedsim.training.loading import checkpoint, probing, safety
from fedsim.training.loading.configuration import check_window
from fedsim.training.loading.special_tokens import check_unknown_token

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_ROOT = re.compile(r"^(/|\\|~|\.|[A-Za-z]:)")
FIX = "give a folder written by save_pretrained, a hub name such as openai-community/gpt2, or builtin"
WEIGHTS, PICKLES = "model*.safetensors", "pytorch_model*.bin"
"""Files of weights in a folder; the second are read where `FEDSIM_ALLOW_PICKLE` asks for it."""
ANSWER_S = 10.0
"""How long the hub may take to say that it knows a name."""


def is_hub_name(name: str) -> bool:
    """Tell whether a name can only be a hub name: `owner/name` or `name`, and nothing here is called so.

    `models/tiny` is a folder that is not there where a folder `models` is.
    """
    if not _NAME.fullmatch(name) or _ROOT.match(name) or Path(name).exists():
        return False
    owner, slash, _ = name.partition("/")
    return not (slash and Path(owner).is_dir())


def libraries() -> Any:
    """Return transformers, quiet and without telemetry."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers
    transformers.utils.logging.disable_progress_bar()
    return transformers


def check_folder(name: str) -> None:
    """Raise a DataError if a folder is not there, or is no model's."""
    path = Path(name)
    if not path.is_dir():
        what = "is a file, not a folder" if path.is_file() else "there is no such folder"
        beside = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
        near = nearest(path.name, beside) if beside else ""
        raise DataError(message("task.model", what, got=name, fix=near if near.startswith("did") else FIX))
    if (path / "adapter_config.json").is_file():
        what = "the folder holds an adapter"
        fix = "merge it into its model first: PeftModel.merge_and_unload, then save_pretrained"
        raise DataError(message("task.model", what, got=name, fix=fix))
    if not (path / "config.json").is_file():
        raise DataError(message("task.model", "the folder holds no config.json", got=name, fix=FIX))
    safety.check_texts(path, name)


def check_reachable(name: str) -> None:
    """Raise a DataError if the hub does not know a name, or cannot be reached: one question instead of many retries.

    What has been downloaded before is not asked for.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError
    from huggingface_hub.file_download import repo_folder_name

    if (
        _offline()
        or (Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")).is_dir()
    ):
        return
    try:
        HfApi().model_info(name, timeout=ANSWER_S)
    except RepositoryNotFoundError as problem:
        what = "there is no such folder here, and no such model on the hub that may be read"
        fix = f"{FIX}; a private model needs HF_TOKEN"
        raise DataError(message("task.model", what, got=name, fix=fix)) from problem
    except Exception as problem:  # the hub's client and its transport have no common base class
        what = f"there is no such folder here, and the hub cannot be reached ({described(problem)})"
        raise DataError(message("task.model", what, got=name, fix=FIX)) from problem


def _from(name: str, what: str, load: Callable[[], Any]) -> Any:
    """Load something of a model, translating what goes wrong."""
    folder = not is_hub_name(name)
    if folder:
        check_folder(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load()
    except Exception as problem:  # transformers has its own error types for impossible configurations
        if folder:
            fix = f"is it complete? its {what} must load with transformers' Auto classes"
            raise DataError(
                message("task.model", f"cannot load the {what}: {described(problem)}", got=name, fix=fix)
            ) from problem
        why = "HF_HUB_OFFLINE is set" if _offline() else "is the name right, and the hub reachable?"
        if "safetensors" in str(problem):
            why = f"it has no safetensors; {safety.ALLOW_PICKLE}=1 reads pickles, too"
        fix = f"{why}; or give a local folder, or model: builtin"
        raise DataError(
            message("task.model", f"cannot get the {what} from the hub", got=name, fix=fix)
        ) from problem


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")


@lru_cache(maxsize=8)
def config(name: str) -> PretrainedConfig:
    """Return a causal language model's configuration.

    Raises:
        DataError: missing, unreadable, or not a causal language model.
    """
    transformers = libraries()
    if is_hub_name(name):
        check_reachable(name)
    raw = _from(name, "configuration", lambda: transformers.PreTrainedConfig.get_config_dict(name)[0])
    safety.check_settings(raw, name)
    settings = _from(
        name,
        "configuration",
        lambda: transformers.AutoConfig.from_pretrained(name, trust_remote_code=False),
    )
    known = transformers.AutoModelForCausalLM._model_mapping  # noqa: SLF001  # the only list there is
    if type(settings) not in known:
        fix = "give a GPT-2-, Llama-, Qwen- or Gemma-like model"
        raise DataError(
            message("task.model", "is not a causal language model", got=settings.model_type, fix=fix)
        )
    check_window(settings, name)
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
    load = partial(transformers.AutoTokenizer.from_pretrained, trust_remote_code=False)
    loaded = _from(name, "tokenizer", lambda: _without_panic(load, name))
    if not loaded.get_vocab().keys() - loaded.get_added_vocab().keys():
        raise _no_tokenizer(name)
    check_unknown_token(loaded)
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


def weights(name: str, dtype: str = "float32") -> PreTrainedModel:
    """Return the model in a dtype of torch (by name) and in evaluation mode, so that dropout is off.

    Raises:
        DataError: weights are missing, of other shapes or not finite; or the model looks ahead.
    """
    transformers = libraries()
    import torch

    checkpoint.check_stored(Path(name), name)
    load = partial(
        transformers.AutoModelForCausalLM.from_pretrained,
        name,
        dtype=getattr(torch, dtype),
        trust_remote_code=False,
        use_safetensors=safety.only_safetensors(),
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are refused below, by name
    )
    with quiet():
        model, info = _from(name, "weights", load)
    model.config.use_cache = False
    model.eval()
    checkpoint.check_loaded(model, info, name)
    checkpoint.check_names(model, skeleton(name), name)
    probing.check_causal(model, name)
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from printing what is told here in a sentence."""
    logging = libraries().utils.logging
    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)


@lru_cache(maxsize=8)
def skeleton(name: str) -> PreTrainedModel:
    """Return the model without weights (on torch's meta device): every name and shape, no memory."""
    transformers = libraries()
    import torch

    settings = config(name)

    def build() -> PreTrainedModel:
        with torch.device("meta"):
            return transformers.AutoModelForCausalLM.from_config(settings, trust_remote_code=False)

    return _from(name, "architecture", build)


def local_copy(name: str) -> Path:
    """Return the folder of a model on this machine; a hub's is downloaded whole, if it is not here: safetensors if it has any.

    Raises:
        DataError: it cannot be had from the hub.
    """
    if not is_hub_name(name):
        return Path(name).absolute()
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors"]
    folder = Path(_from(name, "files", lambda: snapshot_download(name, allow_patterns=patterns)))
    if next(folder.rglob("*.safetensors"), None) is None:
        _from(name, "weights", lambda: snapshot_download(name, allow_patterns=["*.bin"]))
    return folder


def class_names(part: Any) -> dict[str, list[str]]:
    """Return the names of the classes, by column, that a split of `datasets` gives."""
    return {column: kind.names for column, kind in part.features.items() if getattr(kind, "names", None)}


def check_sequence(name: str, sequence: int) -> None:
    """Raise a DataError if a model does not read so many tokens at once; its weights are not needed."""
    model = skeleton(name)
    most = probing.longest(model)
    if most is None or sequence <= most:
        most = probing.readable(model, sequence)
    refuse_longer(most, sequence)


def refuse_longer(most: int, sequence: int) -> None:
    """Raise a DataError if a sequence is longer than the most tokens that a model reads at once."""
    if sequence > most:
        what, fix = f"the model reads {most} tokens at most", f"set task.sequence to {most} or less"
        raise DataError(message("task.sequence", what, got=sequence, fix=fix))


def check_weights(name: str) -> None:
    """Raise a DataError if a folder holds no weights or not all of its files; a hub's are fetched by the first worker."""
    if not is_hub_name(name):
        fix = "copy model.safetensors there, or write the folder again with save_pretrained"
        checkpoint.check_files(Path(name), (WEIGHTS, PICKLES), name, fix)
        checkpoint.check_stored(Path(name), name)
