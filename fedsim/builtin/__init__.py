"""What fedsim runs on when it is given neither a model nor data; uses errors only.

The model (`model_folder()`) is a 0.38 M parameter Llama with a 512-token byte-level BPE, pretrained by
`scripts/pretrain_builtin.py` on the core of Python's standard library. The federated text (`documents()`) is
read from the running Python and was *not* in that training set: the reference topics of `pydoc_data`, English
prose and thus a clearly shifted domain, and the sources of the packages in `PACKAGES`. Nothing is downloaded, and
no text is shipped: another Python version has slightly other text, so `corpus_hash` goes with every result.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Final

from fedsim.errors import DataError, message

PACKAGES: Final = ("_pydecimal", "asyncio", "email", "unittest", "xml")
"""Standard-library packages and modules held out of pretraining: they are federated text."""

TOPICS: Final = "pydoc_data"
"""The package whose `topics` are held out too; named apart because it is data, not source."""

MODEL_FILES: Final = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)

_NOT_TEXT: Final = frozenset({"test", "tests", "__pycache__"})

# The reference is one text cut in 79 topics; these families make labels of comparable size (30-110 kB).
# A topic that a later Python adds, and what fits nowhere, is "topics/other".
_FAMILIES: Final = {
    "topics/statements": """assert assignment async augassign await break class compound context-managers continue del
        else for function global if import nonlocal pass raise return try while with yield""",
    "topics/expressions": """atom-identifiers atom-literals attribute-references binary bitwise booleans calls
        comparisons conversions dict exprlists floating id-classes identifiers imaginary in integers lambda lists
        numbers operator-summary power shifting slicings strings subscriptions truth unary""",
    "topics/data-model": """attribute-access bltin-code-objects bltin-ellipsis-object bltin-null-object
        bltin-type-objects callable-types customization dynamic-features exceptions execmodel naming numeric-types
        objects sequence-types specialattrs specialnames types typesfunctions typesmethods typesmodules""",
    "topics/text-and-containers": "formatstrings string-methods typesmapping typesseq typesseq-mutable",
}
_FAMILY_OF: Final = {topic: family for family, topics in _FAMILIES.items() for topic in topics.split()}


@dataclass(frozen=True, slots=True)
class Document:
    """One text of the federated corpus.

    Attributes:
        name: unique, such as `topics/assert` or `asyncio/events.py`: the finest natural client id.
        group: a package, or a family of topics (`asyncio`, `topics/statements`): a label, a coarse client id.
        text: never empty.
    """

    name: str
    group: str
    text: str


def model_folder() -> Path:
    """Return the shipped model's folder, as `from_pretrained` takes it.

    The weights are stored in half precision and say so nowhere: `config.json` asks for float32.

    Raises:
        DataError: the installation lacks a file of it.
    """
    folder = Path(str(files(__name__) / "model"))
    missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if missing:
        raise DataError(
            message(
                str(folder),
                f"the built-in model is incomplete: no {', '.join(missing)}",
                fix="reinstall fedsim (unzipped), or name a model: task.model: FOLDER",
            )
        )
    return folder


def standard_library() -> Path:
    """Return the folder of the running Python's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def sources(folder: Path, package: str) -> list[Path]:
    """Return the source files of one package or single module of a library folder, sorted, without its tests."""
    module = folder / f"{package}.py"
    if module.is_file():
        return [module]
    paths = (folder / package).rglob("*.py")
    return sorted(path for path in paths if not _NOT_TEXT & set(path.relative_to(folder).parts))


def documents() -> list[Document]:
    """Return the federated text: about 79 reference topics and 110 source files, 1.9 MB, in a fixed order.

    Topics are one reference cut several times: `compound` contains `try`, and `else` is `if`. Left alone, the same
    paragraph would be in two clients' data and in the test split, and perplexity would reward memory. So each
    paragraph stays in the shortest topic that has it and nowhere else.

    Raises:
        DataError: this Python has no sources (byte code only, a zipped or minimal library).
    """
    folder = standard_library()
    topics = _topics()
    packages = {package: list(_package(folder, package)) for package in PACKAGES}
    missing = [name for name, parts in {TOPICS: topics, **packages}.items() if not parts]
    if missing:
        raise DataError(
            message(
                "task.data",
                "the built-in text is this Python's standard library, which is here without sources",
                got=f"{folder}: nothing of {', '.join(missing)}",
                fix="name a text (task.data: FOLDER, a file or a hub id), or use a Python installed with its sources",
            )
        )
    return [*topics, *(document for parts in packages.values() for document in parts)]


def corpus_hash(corpus: Iterable[Document]) -> str:
    """Return the SHA-256 of a corpus, names and groups included, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for document in corpus:
        for part in (document.name, document.group, document.text):
            data = part.encode()
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
    return digest.hexdigest()


def _topics() -> list[Document]:
    try:
        topics: dict[str, str] = import_module(f"{TOPICS}.topics").topics
    except (ImportError, AttributeError):
        return []
    unique = without_repeats(topics)
    return [
        Document(f"topics/{name}", _FAMILY_OF.get(name, "topics/other"), unique[name])
        for name in sorted(unique)
        if unique[name].strip()
    ]


def without_repeats(texts: Mapping[str, str]) -> dict[str, str]:
    r"""Keep each paragraph (blank-line separated, compared without white space) in the shortest text that has it.

    >>> without_repeats({"long": "One.\n\nTwo.\n\nThree.", "short": "Two."})
    {'long': 'One.\n\nThree.', 'short': 'Two.'}
    """
    seen: set[str] = set()
    unique: dict[str, str] = {}
    for name in sorted(texts, key=lambda name: (len(texts[name]), name)):
        paragraphs = [(" ".join(p.split()), p) for p in texts[name].split("\n\n")]
        unique[name] = "\n\n".join(p for key, p in paragraphs if key not in seen)
        seen.update(key for key, _ in paragraphs)
    return {name: unique[name] for name in texts}


def _package(folder: Path, package: str) -> Iterator[Document]:
    for path in sources(folder, package):
        text = path.read_text(encoding="utf-8")
        if text.strip():
            yield Document(path.relative_to(folder).as_posix(), package.lstrip("_"), text)
