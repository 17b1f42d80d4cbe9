"""Small tokenizers of many kinds, as `tokenizer.json` would have them: models, normalisers, what is stored beside."""

from __future__ import annotations

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

TEXT = [
    "the ship sails over a deep blue sea",
    "The Farmer feeds brown cows & hens",
    "a café, naïve: 12 + 3 = 15!",
] * 3
SPECIAL = ["<unk>", "<s>", "</s>"]


def _trained(model, trainer, *, pre, norm=None, decode=None):
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre
    if norm is not None:
        tokenizer.normalizer = norm
    if decode is not None:
        tokenizer.decoder = decode
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def _byte_level():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    return _trained(models.BPE(), trainer, pre=pre_tokenizers.ByteLevel(add_prefix_space=False))


def _prefix_space():
    tokenizer = _byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


def _wordpiece():
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=SPECIAL, show_progress=False)
    norm = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    return _trained(
        models.WordPiece(unk_token="<unk>"), trainer, pre=pre_tokenizers.BertPreTokenizer(), norm=norm
    )


def _words():
    trainer = trainers.WordLevelTrainer(vocab_size=60, special_tokens=SPECIAL, show_progress=False)
    return _trained(models.WordLevel(unk_token="<unk>"), trainer, pre=pre_tokenizers.Whitespace())


def _unigram():
    trainer = trainers.UnigramTrainer(
        vocab_size=70, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    norm = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    return _trained(
        models.Unigram(), trainer, pre=pre_tokenizers.Metaspace(prepend_scheme="always"), norm=norm
    )


def _sentencepiece_like():
    """As Llama 2 had it: no pre-tokeniser, a space in front by the normaliser, bytes for what is unknown."""
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"aetshn", "▁t", "▁th"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = [("▁", "t"), ("▁t", "h")]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def _characters():
    tokenizer = Tokenizer(
        models.WordLevel({c: i for i, c in enumerate([*SPECIAL, *"abcdefghijklmnopqrstuvwxyz "])}, "<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


PLAIN = {
    "byte-level BPE": _byte_level, "BPE with a space in front": _prefix_space, "WordPiece, lower case": _wordpiece,
    "words": _words, "unigram": _unigram, "like SentencePiece": _sentencepiece_like, "characters": _characters,
}  # fmt: skip


def _pads(tokenizer):
    tokenizer.enable_padding(pad_id=0, pad_token="<unk>", length=64)


def _pads_left(tokenizer):
    tokenizer.enable_padding(direction="left", pad_id=2, pad_token="</s>", pad_to_multiple_of=8)


def _cuts(tokenizer):
    tokenizer.enable_truncation(4)


def _cuts_with_stride(tokenizer):
    tokenizer.enable_truncation(6, stride=3)
    _pads(tokenizer)


def _frames(tokenizer):
    tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )


def _adds(tokenizer):
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", lstrip=True, rstrip=True)])
    tokenizer.add_tokens([AddedToken("ship", single_word=True), AddedToken("  ", normalized=False)])


STORED = {
    "nothing": lambda _: None, "padding": _pads, "padding on the left": _pads_left, "truncation": _cuts,
    "truncation, stride and padding": _cuts_with_stride, "a template": _frames, "added tokens": _adds,
}  # fmt: skip
"""What a tokenizer's file may have stored besides the tokenizer."""


def tokenizer(kind, stored):
    """A tokenizer of a kind that stores something."""
    made = PLAIN[kind]()
    STORED[stored](made)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
