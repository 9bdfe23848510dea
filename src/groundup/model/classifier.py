"""Sequence classification: a classification head on the decoder, as in transformers' `*ForSequenceClassification`.

Shape letters: B batch, T sequence, D dim, C labels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groundup.model.config import ModelConfig
from groundup.model.layers import Linear
from groundup.model.operations import Accelerated
from groundup.model.transformer import Decoder, Transformer

_HEAD_STD = 0.001  # as for the language model head: the initial loss is ln(C)


class SequenceClassifier(Accelerated):
    """A classifier that computes label logits from the hidden state of a text's last token.

    Args:
        config: The config of the decoder.
        n_labels: Number of labels.
        multi_label: Whether a text may have several labels; each label then has an independent probability.
    """

    def __init__(self, config: ModelConfig, n_labels: int, *, multi_label: bool = False) -> None:
        super().__init__()
        self.config = config
        self.multi_label = multi_label
        self.model = Decoder(config)
        self.score = Linear(config.dim, n_labels, bias=False)

    @classmethod
    def from_language_model(
        cls, base: Transformer, n_labels: int, *, seed: int, multi_label: bool = False
    ) -> SequenceClassifier:
        """Return a classifier with the decoder of a language model and a new head with weights close to zero.

        The decoder is not copied, to save memory. It becomes trainable.

        Args:
            base: The language model.
            n_labels: Number of labels.
            seed: Random seed of the head.
            multi_label: Whether a text may have several labels.
        """
        with torch.device("meta"):
            classifier = cls(base.config, n_labels, multi_label=multi_label)
        classifier.model = base.model.requires_grad_(True)
        classifier.score.to_empty(device=base.lm_head.weight.device)
        nn.init.normal_(classifier.score.weight, std=_HEAD_STD, generator=torch.Generator().manual_seed(seed))
        return classifier

    def probabilities(self, logits_BC: Tensor) -> Tensor:
        """Return label probabilities (B, C): softmax, or sigmoid for a multi-label classifier."""
        return logits_BC.sigmoid() if self.multi_label else logits_BC.softmax(-1)

    @torch.no_grad()
    def apply_temperature(self, temperature: float) -> None:
        """Divide the head's weights, and so all logits, by a temperature."""
        self.score.weight /= temperature

    def forward(self, input_ids_BT: Tensor, last_B: Tensor) -> Tensor:
        """Return label logits (B, C) in fp32.

        Args:
            input_ids_BT: Token ids with right padding. No mask is needed, because tokens do not attend to later ones.
            last_B: Index of each text's last token.
        """
        # The head computes in the dtype of its weights, because bf16 probabilities would have only two digits.
        return self.score(self.last_hidden_state(input_ids_BT, last_B).to(self.score.weight.dtype)).float()

    def last_hidden_state(self, input_ids_BT: Tensor, last_B: Tensor) -> Tensor:
        """Return the hidden states (B, D) of each text's last token; see `forward`."""
        h_BTD = self.model(input_ids_BT)
        rows_B = torch.arange(len(last_B), device=last_B.device)
        return h_BTD[rows_B, last_B]
