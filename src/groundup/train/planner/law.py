"""Scaling law of small training runs: bits per byte from parameters, unique text, epochs and weight decay.

The law is fitted on runs of one training recipe. It predicts the outcome of a run before training, so that the planner
can choose the size of the model and the number of epochs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import DataError, FormatError
from groundup.core.files import read_json, shell_quoted, write_json

_LAW = "scaling_law.json"
_LAW_VERSION = 6  # increased when the formula changes, because coefficients are valid only for the fitted formula
Z_90 = 1.645  # half the width of a 90 % interval, in standard deviations
_PARAMETERS = 1e6  # unit of N
_BYTES = 1e7  # unit of the text seen
_FITTED = (
    "scale",
    "entropy",
    "size",
    "size_exponent",
    "data",
    "data_exponent",
    "text_exponent",
    "repeats",
    "overfitting",
)
# Standard deviations of the prior of the logarithm of each coefficient. A few runs do not determine all coefficients,
# so the fit starts from the coefficients of another law and changes them only as far as the runs require.
_PRIOR = np.array([0.2, 0.05, 0.1, 0.1, 0.1, 0.4, 0.3, 0.4, 0.7])
_NOISE = 0.015  # standard deviation of the relative error of a run, for example between seeds
_FEW_RUNS = 5  # number of runs below which they do not show how precise the law is
_FEW_RUNS_ERROR = 0.05  # error of laws that are fitted on two runs (`benchmarks/ablations.md`)
_EXTRAPOLATION = 0.03  # additional relative error per factor e outside of the range of the fitted runs
_OTHER_TEXT = 0.2  # additional relative error for text on which the law was not fitted
_PPMD_EXPONENT = 1.2  # a model uses the regularities of a text more than PPMd does
# Overfitting without weight decay, dropout and token dropout: 15 epochs of 1.1 MB end with 2.503 bits per byte, instead
# of 2.033. In Lovelace et al. 2026, weight decay alone removes 70 %.
_UNREGULARIZED = 24.0
_MAX_ITERATIONS = 60
MIN_RUNS = 2
# For random weights. If text repeats, the best weight decay of AdamW is about 30 times the usual one (Kim et al. 2025,
# arXiv:2509.14786). A large one is also better for a single epoch (`benchmarks/ablations.md`).
WEIGHT_DECAY = 0.3


@dataclass(frozen=True, slots=True)
class LadderRun:
    """A finished training run, on which a law is fitted.

    Attributes:
        parameters: Number of parameters in the layers, see `groundup.model.flops.layer_parameters`.
        text_bytes: UTF-8 bytes of the training text.
        epochs: Number of epochs.
        bits_per_byte: Bits per byte of the held-out text.
        weight_decay: Weight decay, or None for `WEIGHT_DECAY`.
    """

    parameters: float
    text_bytes: float
    epochs: float
    bits_per_byte: float
    weight_decay: float | None = None


@dataclass(frozen=True, slots=True)
class LossInterval:
    """Predicted bits per byte with a 90 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Law:
    """Coefficients of the scaling law.

    With N parameters in the layers, U bytes of unique text and e epochs, the bits per byte are

        c (entropy + sqrt(S^2 + T^2) + overfitting N (e - 1) / U)
        S = size (N / 1e6)^-size_exponent
        T = data (D / 1e7)^-data_exponent (U / 1e7)^-text_exponent

    Below one epoch, the overfitting penalty is 0.

    The terms are those of Hoffmann et al. 2022 (arXiv:2203.15556), who add S and T. As in the law of Kaplan et al. 2020
    (arXiv:2001.08361), a larger model gains more if there is more text; the square root describes small models better
    than the sum. The factor with U is our own: the tokenizer of a longer text has a larger vocabulary, so a model
    learns more from the same part of the text. D is the effective text of Muennighoff et al. 2023 (arXiv:2305.16264),
    D = U (1 + repeats (1 - exp(-(e - 1) / repeats))) for e > 1. The last term is an additive overfitting penalty, as
    proposed by Lovelace et al. 2026 (arXiv:2605.01640); its form is our own. It is 24 times as large without
    regularization, from two epochs on. c is `scale`, times a power of the ratio of the text's `ppmd` to that of the
    fitted text.

    Attributes:
        scale: Factor for the fitted text.
        entropy: Bits per byte of an infinitely large model and text.
        size: Bits per byte that a model with 1M parameters in its layers adds, for infinitely much text.
        size_exponent: Exponent of the parameters.
        data: Bits per byte that 10 MB of text add, for an infinitely large model.
        data_exponent: Exponent of the text that is read.
        text_exponent: Exponent of the unique text.
        repeats: Number of repetitions with a large effect.
        overfitting: Coefficient of the overfitting penalty.
        residual: Standard deviation of the relative error of predictions.
        ppmd: Result of `groundup.train.planner.forecast.ppmd_bits_per_byte` for the fitted text, or None if unknown.
        ranges: Smallest and largest value of parameters, bytes of unique text, and epochs of the fitted runs.
        runs: Number of fitted runs.
        source: Origin of the coefficients.
    """

    scale: float
    entropy: float
    size: float
    size_exponent: float
    data: float
    data_exponent: float
    text_exponent: float
    repeats: float
    overfitting: float
    residual: float
    ppmd: float | None
    ranges: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    runs: int
    source: str

    def bits_per_byte(
        self,
        parameters: float,
        text_bytes: float,
        epochs: float,
        *,
        weight_decay: float | None = None,
        ppmd: float | None = None,
    ) -> float:
        """Return the predicted bits per byte of held-out text.

        Args:
            parameters: See `LadderRun`.
            text_bytes: See `LadderRun`.
            epochs: See `LadderRun`.
            weight_decay: See `LadderRun`.
            ppmd: Result of `groundup.train.planner.forecast.ppmd_bits_per_byte` for the text, or None for a text like
                the fitted one.
        """
        again = max(0.0, epochs - 1)
        effective = text_bytes * (min(epochs, 1.0) + self.repeats * -math.expm1(-again / self.repeats))
        strength = 1.0
        if weight_decay is not None and again:
            strength = min(1.0, weight_decay / WEIGHT_DECAY)
        weak = _UNREGULARIZED ** ((1 - strength) * min(1.0, again))
        penalty = self.overfitting * weak * parameters / max(text_bytes, 1.0) * again
        size = self.size * (parameters / _PARAMETERS) ** -self.size_exponent
        data = self.data * (max(effective, 1.0) / _BYTES) ** -self.data_exponent
        data *= (max(text_bytes, 1.0) / _BYTES) ** -self.text_exponent
        return self.scale_for(ppmd) * (self.entropy + math.hypot(size, data) + penalty)

    def interval(
        self,
        parameters: float,
        text_bytes: float,
        epochs: float,
        *,
        weight_decay: float | None = None,
        ppmd: float | None = None,
    ) -> LossInterval:
        """Return the predicted bits per byte with a 90 % interval. See `bits_per_byte` for the arguments.

        The interval is wider outside of the range of the fitted runs, and for text on which the law was not fitted.
        """
        value = self.bits_per_byte(parameters, text_bytes, epochs, weight_decay=weight_decay, ppmd=ppmd)
        outside = sum(
            max(0.0, math.log(low / point), math.log(point / high))
            for point, (low, high) in zip((parameters, text_bytes, epochs), self.ranges, strict=True)
        )
        same = ppmd is not None and math.isclose(ppmd, self.ppmd or 0.0, rel_tol=0.02)
        other = 0.0 if same else _OTHER_TEXT
        error = Z_90 * math.hypot(self.residual, other, _EXTRAPOLATION * outside)
        return LossInterval(value, value * math.exp(-error), value * math.exp(error))

    def to_json(self) -> dict[str, Any]:
        """Return the coefficients as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Return the law from the result of `to_json`."""
        ranges = tuple((float(low), float(high)) for low, high in record["ranges"])
        return cls(**dict(record) | {"ranges": ranges})

    def save(self, directory: Path) -> None:
        """Save the law with the token shards on which it was fitted."""
        write_json(directory / _LAW, {"format_version": _LAW_VERSION} | self.to_json())

    def scale_for(self, ppmd: float | None) -> float:
        """Return the factor for a text. See `bits_per_byte` for the argument."""
        if ppmd is None or self.ppmd is None:
            return self.scale
        return self.scale * (ppmd / self.ppmd) ** _PPMD_EXPONENT


# Fitted on the 27 runs in benchmarks/ablations.md ("Scaling law"). They determine neither the entropy nor the exponent
# of the size, for which 0.5 and 0.17 are assumed, so that predictions for large models are plausible.
DEFAULT_LAW = Law(
    scale=1.0,
    entropy=0.500,
    size=0.715,
    size_exponent=0.170,
    data=1.195,
    data_exponent=0.184,
    text_exponent=0.0053,
    repeats=3.68,
    overfitting=0.00137,
    residual=0.0118,
    ppmd=2.41,
    ranges=((4e5, 1.1e7), (4e5, 3.1e7), (0.05, 60.0)),
    runs=27,
    source="27 runs of benchmarks/ablations.md, 3 December 2026",
)


def law_for(directory: Path) -> Law:
    """Return the law that was fitted on the token shards in a directory, or the default law.

    Raises:
        FormatError: Another release fitted the law, with another formula.
    """
    path = directory / _LAW
    if not path.is_file():
        return DEFAULT_LAW
    record = read_json(path)
    version = record.pop("format_version", None)
    if version != _LAW_VERSION:
        raise FormatError(
            f"{path}: format_version {version}",
            rule=f"this release reads scaling laws of format_version {_LAW_VERSION}, whose formula differs",
            fix=f"Run groundup plan {shell_quoted(directory)} --minutes 10, which replaces it, or delete the file.",
        )
    return Law.from_json(record)


def has_law(directory: Path) -> bool:
    """Return whether token shards have a law that this release can read."""
    try:
        return law_for(directory) is not DEFAULT_LAW
    except FormatError:
        return False


def drop_outdated_law(directory: Path) -> None:
    """Delete the law of token shards if this release cannot read it, so that training can use the default law."""
    if not has_law(directory):
        (directory / _LAW).unlink(missing_ok=True)


def fit_law(
    runs: Sequence[LadderRun], *, ppmd: float | None = None, prior: Law = DEFAULT_LAW, source: str = "own runs"
) -> Law:
    """Fit the coefficients of the law on finished runs on one text.

    The fit is the maximum of the posterior: least squares of the logarithm of the bits per byte, with a normal prior of
    the logarithm of each coefficient around the coefficients of `prior`. It uses the Levenberg-Marquardt method. The
    `residual` is the root mean square of the relative errors of runs that are left out of the fit one at a time, or a
    typical value if there are only a few runs.

    Args:
        runs: Finished runs of the same recipe.
        ppmd: Result of `groundup.train.planner.forecast.ppmd_bits_per_byte` for the text, if known.
        prior: Law from which the fit starts.
        source: Description of the runs.

    Raises:
        DataError: There are fewer than `MIN_RUNS` runs.
    """
    if len(runs) < MIN_RUNS:
        raise DataError(
            f"{len(runs)} finished runs", fix=f"Fit the law on at least {MIN_RUNS} runs of different lengths."
        )
    start = replace(prior, scale=prior.scale_for(ppmd), ppmd=ppmd)
    residual = _FEW_RUNS_ERROR if len(runs) < _FEW_RUNS else _left_out_error(runs, start)
    values = [[run.parameters for run in runs], [run.text_bytes for run in runs], [run.epochs for run in runs]]
    parameters, text_bytes, epochs = (
        (min(low, *row), max(high, *row)) for row, (low, high) in zip(values, prior.ranges, strict=True)
    )
    return replace(
        _fitted(runs, start),
        residual=residual,
        ranges=(parameters, text_bytes, epochs),
        runs=len(runs),
        source=source,
    )


def _left_out_error(runs: Sequence[LadderRun], start: Law) -> float:
    """Return the root mean square of the relative errors of runs that are left out of the fit one at a time."""
    errors = []
    for index, run in enumerate(runs):
        others = [*runs[:index], *runs[index + 1 :]]
        errors.append(math.log(_predicted(_fitted(others, start), run) / run.bits_per_byte))
    return max(_NOISE / 2, math.sqrt(float(np.mean(np.square(errors)))))


def _predicted(law: Law, run: LadderRun) -> float:
    return law.bits_per_byte(run.parameters, run.text_bytes, run.epochs, weight_decay=run.weight_decay)


def _fitted(runs: Sequence[LadderRun], prior: Law) -> Law:
    """Return the law with the most probable coefficients."""
    center = np.log([getattr(prior, name) for name in _FITTED])

    def law(theta: NDArray[np.float64]) -> Law:
        return replace(prior, **dict(zip(_FITTED, np.exp(theta).tolist(), strict=True)))

    def residuals(theta: NDArray[np.float64]) -> NDArray[np.float64]:
        candidate = law(theta)
        errors = [math.log(_predicted(candidate, run) / run.bits_per_byte) / _NOISE for run in runs]
        return np.array([*errors, *((theta - center) / _PRIOR)])

    theta, damping = center.copy(), 1e-2
    errors = residuals(theta)
    for _ in range(_MAX_ITERATIONS):
        step = 1e-5
        columns = [(residuals(theta + step * axis) - errors) / step for axis in np.eye(len(theta))]
        jacobian = np.stack(columns, axis=1)
        square = jacobian.T @ jacobian
        change = np.linalg.solve(square + damping * np.diag(np.diag(square)), -jacobian.T @ errors)
        proposed = residuals(theta + change)
        if proposed @ proposed >= errors @ errors:
            damping *= 10
            if damping > 1e8:
                break
            continue
        theta, errors, damping = theta + change, proposed, damping / 5
        if float(np.abs(change).max()) < 1e-6:
            break
    return law(theta)
