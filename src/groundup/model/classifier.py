"""A classification head on the decoder, as transformers' `*ForSequenceClassification` have it.

Shape letters: B batch, T sequence, D dim, C labels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groundup.model.config import ModelConfig
from groundup.model.layers import Linear
from groundup.model.operations import Accelerated
from groundup.model.transformer import Decoder, Transformer

_HEAD_STD = 0.001  # as the language model's head: the first loss is ln(C)


class SequenceClassifier(Accelerated):
    """Scores labels from the hidden state of a text's last token, which has seen all of the text.

    Attributes:
        multi_label: a text may have several labels: each has a probability of its own.
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
        """The decoder of a language model under a new head near zero, the same for the same seed.

        It is the model's own decoder and no copy, which would take its memory a second time.
        """
        with torch.device("meta"):
            classifier = cls(base.config, n_labels, multi_label=multi_label)
        classifier.model = base.model.requires_grad_(True)
        classifier.score.to_empty(device=base.lm_head.weight.device)
        nn.init.normal_(classifier.score.weight, std=_HEAD_STD, generator=torch.Generator().manual_seed(seed))
        return classifier

    def probabilities(self, logits_BC: Tensor) -> Tensor:
        """Of each label, (B, C): they add up to 1, unless a text may have several."""
        return logits_BC.sigmoid() if self.multi_label else logits_BC.softmax(-1)

    @torch.no_grad()
    def soften(self, temperature: float) -> None:
        """Divide all logits by a temperature, in the head's weights: labels keep their order."""
        self.score.weight /= temperature

    def forward(self, input_ids_BT: Tensor, last_B: Tensor) -> Tensor:
        """Logits (B, C) in fp32.

        Args:
            input_ids_BT: texts, each from position 0 on. What follows a text is padding of any value: no mask is
                needed, because a token never sees those after it.
            last_B: the index of each text's last token.
        """
        # The head computes in the dtype of its weights: in bf16, probabilities would have two digits.
        return self.score(self.last_state(input_ids_BT, last_B).to(self.score.weight.dtype)).float()

    def last_state(self, input_ids_BT: Tensor, last_B: Tensor) -> Tensor:
        """The hidden state (B, D) of each text's last token."""
        h_BTD = self.model(input_ids_BT)
        rows_B = torch.arange(len(last_B), device=last_B.device)
        return h_BTD[rows_B, last_B]
