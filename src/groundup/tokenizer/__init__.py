"""Tokenizers: training, encoding, decoding, special tokens and chat templates.

The tokenizers and chat templates of imported models are also supported.
"""

from groundup.tokenizer.chat import ROLES, ChatTemplate
from groundup.tokenizer.chat_tokens import chat_token_pieces, with_chat_tokens
from groundup.tokenizer.encoding import CorpusEncoder
from groundup.tokenizer.extension import extend_tokenizer, new_token_pieces
from groundup.tokenizer.source import CONFIG_FILE, TEMPLATE_FILE, TOKENIZER_FILE
from groundup.tokenizer.streaming import StreamDecoder
from groundup.tokenizer.template_check import (
    GOLDEN_FILE,
    load_chat_template,
    save_chat,
    save_template_check,
    verify_template_check,
)
from groundup.tokenizer.tokenizer import Tokenizer
from groundup.tokenizer.training import train_tokenizer
from groundup.tokenizer.vocabulary import END_OF_TEXT, IM_END, IM_START, PAD, SPECIAL_TOKENS, vocab_size_for

__all__ = [
    "CONFIG_FILE",
    "END_OF_TEXT",
    "GOLDEN_FILE",
    "IM_END",
    "IM_START",
    "PAD",
    "ROLES",
    "SPECIAL_TOKENS",
    "TEMPLATE_FILE",
    "TOKENIZER_FILE",
    "ChatTemplate",
    "CorpusEncoder",
    "StreamDecoder",
    "Tokenizer",
    "chat_token_pieces",
    "extend_tokenizer",
    "load_chat_template",
    "new_token_pieces",
    "save_chat",
    "save_template_check",
    "train_tokenizer",
    "verify_template_check",
    "vocab_size_for",
    "with_chat_tokens",
]
