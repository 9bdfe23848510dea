"""Vocabularies: training, encoding, decoding, special tokens, chat templates; ours and those of other models."""

from groundup.tokenizer.chat import ROLES, ChatTemplate
from groundup.tokenizer.chat_tokens import chat_token_pieces, with_chat_tokens
from groundup.tokenizer.encoding import CorpusEncoder
from groundup.tokenizer.extension import extend_tokenizer, new_token_pieces
from groundup.tokenizer.golden import GOLDEN_FILE, locked_template, require_golden, save_chat, save_golden
from groundup.tokenizer.source import CONFIG_FILE, TEMPLATE_FILE, TOKENIZER_FILE
from groundup.tokenizer.streaming import StreamDecoder
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
    "locked_template",
    "new_token_pieces",
    "require_golden",
    "save_chat",
    "save_golden",
    "train_tokenizer",
    "vocab_size_for",
    "with_chat_tokens",
]
