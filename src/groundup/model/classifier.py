"""Sequence classification with a classification head on the decoder, like `*ForSequenceClassification` in transformers.

Letters in tensor names: B is the batch size, T the sequence length, D the hidden size, and C the number of labels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groundup.model.config import ModelConfig
from groundup.model.layers import Linear
from groundup.model.operations import Accelerated
from groundup.model.transformer import Decoder, Transformer

_HEAD_STD = 0.001  # small, so that the initial loss is close to ln(C); the language model head has the same value


class SequenceClassifier(Accelerated):
    """Classifier that computes the logits of the labels from the hidden state of a text's last token.

    Args:
        config: The config of the decoder.
        n_labels: Number of labels.
        multi_label: Whether a text may have several labels. If so, the probabilities of the labels are independent.
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
        """Return a classifier that consists of the decoder of a language model and a new classification head.

        The weights of the head are initialized close to zero. The decoder is shared with the language model to save
        memory, and its parameters become trainable.

        Args:
            base: The language model.
            n_labels: Number of labels.
            seed: Random seed for the weights of the head.
            multi_label: Whether a text may have several labels.
        """
        with torch.device("meta"):
            classifier = cls(base.config, n_labels, multi_label=multi_label)
        classifier.model = base.model.requires_grad_(True)
        classifier.score.to_empty(device=base.device)
        nn.init.normal_(classifier.score.weight, std=_HEAD_STD, generator=torch.Generator().manual_seed(seed))
        return classifier

    def probabilities(self, logits_BC: Tensor) -> Tensor:
        """Return the probabilities of the labels, of shape (B, C).

        The probabilities are the softmax of the logits, or their sigmoid for a multi-label classifier.
        """
        return logits_BC.sigmoid() if self.multi_label else logits_BC.softmax(-1)

    @torch.no_grad()
    def apply_temperature(self, temperature: float) -> None:
        """Divide the weights of the head by a temperature, which divides all logits by the temperature."""
        self.score.weight /= temperature

    def forward(self, input_ids_BT: Tensor, last_B: Tensor) -> Tensor:
        """Return the logits of the labels, of shape (B, C), in fp32.

        Args:
            input_ids_BT: Token ids with padding on the right. An attention mask for the padding is not required,
                because tokens do not attend to later tokens.
            last_B: Index of each text's last token.
        """
        # The head computes in the dtype of its weights, because probabilities in bf16 have only two significant digits.
        return self.score(self.last_hidden_state(input_ids_BT, last_B).to(self.score.weight.dtype)).float()

    def last_hidden_state(self, input_ids_BT: Tensor, last_B: Tensor) -> Tensor:
        """Return the hidden state of each text's last token, of shape (B, D). See `forward` for the arguments."""
        h_BTD = self.model(input_ids_BT)
        rows_B = torch.arange(len(last_B), device=last_B.device)
        return h_BTD[rows_B, last_B]
