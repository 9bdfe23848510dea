"""The optimizer of a model: Muon or AdamW for the matrices in the layers, and AdamW for all other parameters.

The other parameters are embeddings, the output head, norms and biases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from groundup.core.errors import FormatError
from groundup.optim.muon import Muon, Orthogonalize, newton_schulz


@dataclass(frozen=True, slots=True)
class WarmupStableDecay:
    """Warmup-stable-decay (WSD) schedule of the learning rate: linear warmup, constant learning rate, linear decay.

    Attributes:
        total_steps: Total number of optimizer steps.
        warmup_steps: Number of steps of linear warmup. The learning rate of the first step is greater than 0.
        decay_steps: Number of steps of linear decay at the end. The learning rate of the last step is greater than 0.
    """

    total_steps: int
    warmup_steps: int
    decay_steps: int

    @classmethod
    def from_ratios(cls, total_steps: int, warmup_ratio: float, decay_ratio: float) -> Self:
        """Return a schedule with the given fractions of steps for warmup and decay, rounded up to whole steps."""
        return cls(total_steps, math.ceil(warmup_ratio * total_steps), math.ceil(decay_ratio * total_steps))

    def with_total_steps(self, total_steps: int) -> Self:
        """Return the schedule for another total number of steps.

        The number of warmup steps and the fraction of decay steps stay the same.
        """
        if total_steps == self.total_steps:
            return self
        decay_steps = math.ceil(self.decay_steps * total_steps / self.total_steps)
        return replace(self, total_steps=total_steps, decay_steps=decay_steps)

    def __call__(self, step: int) -> float:
        """Return the factor by which learning rates are multiplied in a step. Steps are numbered from 0."""
        up = (step + 1) / max(1, self.warmup_steps)
        down = (self.total_steps - step) / max(1, self.decay_steps)
        return min(1.0, up, down)


MatrixOptimizer = Literal["muon", "adamw"]
DecaySchedule = Literal["learning_rate", "constant", "linear"]
MATRIX_LR: dict[MatrixOptimizer, float] = {"muon": 0.02, "adamw": 0.002}

# Name of each parameter group -> description, in the order in which they are displayed.
GROUPS: dict[str, str] = {
    "matrix": "2-D weights in the layers",
    "embedding": "embeddings",
    "head": "head",
    "vector": "norms and biases",
}


@dataclass(frozen=True, slots=True)
class GroupRate:
    """A parameter group with its optimizer and learning rate.

    Attributes:
        group: Name of the group, which is a key of `GROUPS`.
        optimizer: Optimizer of the group, "muon" or "adamw".
        learning_rate: Learning rate before the schedule is applied.
        parameters: Number of trainable parameters in the group.
    """

    group: str
    optimizer: MatrixOptimizer
    learning_rate: float
    parameters: int


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """Learning rates (before the schedule is applied) and hyperparameters of the optimizers.

    Attributes:
        matrix_lr: Learning rate of the 2-D weights in the layers. With Muon (Keller Jordan 2024, "Muon: an optimizer
            for hidden layers in neural networks"), it is the spectral norm of an update.
        embedding_lr: AdamW learning rate of token and position embeddings.
        head_lr: AdamW learning rate of the output head, if it is not tied to the embeddings.
        vector_lr: AdamW learning rate of norms and biases.
        momentum: Momentum of Muon.
        betas: Betas of AdamW.
        eps: Epsilon of AdamW.
        weight_decay: Decoupled weight decay of the 2-D weights in the layers (Loshchilov and Hutter 2019,
            arXiv:1711.05101). Each step multiplies the weights by 1 - learning rate · weight decay. The time constant
            in steps is 1 / (learning rate · weight decay), so with Muon's rate of 0.02, a weight decay of 0.1 forgets
            like 1.0 with AdamW's rate of 0.002.
        embedding_weight_decay: Decoupled weight decay of embeddings and head, with the learning rates of these groups.
        weight_decay_schedule: "learning_rate": weights are multiplied by 1 - current learning rate · weight decay.
            "constant": by 1 - peak learning rate · weight decay, also while the learning rate decays. "linear": as
            "learning_rate", with a weight decay that grows linearly from 0 at the first step to its value at the end.
        matrices: Optimizer of the 2-D weights in the layers, "muon" or "adamw". Muon needs fewer training tokens. The
            time for its orthogonalization does not depend on the batch size, so AdamW is faster with small batches.
    """

    matrix_lr: float = MATRIX_LR["muon"]
    embedding_lr: float = 0.01
    head_lr: float = 0.003
    vector_lr: float = 0.003
    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-10
    weight_decay: float = 0.0
    embedding_weight_decay: float = 0.0
    weight_decay_schedule: DecaySchedule = "learning_rate"
    matrices: MatrixOptimizer = "muon"

    def scaled(self, factor: float) -> OptimizerConfig:
        """Return the config with all learning rates multiplied by a factor."""
        return self._with({kind: factor * self.rate_of(kind) for kind in GROUPS})

    def rate_of(self, group: str) -> float:
        """Return the learning rate of a parameter group, which is a key of `GROUPS`."""
        rate: float = getattr(self, f"{group}_lr")
        return rate

    def weight_decay_of(self, group: str) -> float:
        """Return the weight decay of a parameter group, which is a key of `GROUPS`."""
        return {"matrix": self.weight_decay, "vector": 0.0}.get(group, self.embedding_weight_decay)

    def weight_decay_factor(self, lr_factor: float, fraction: float) -> float:
        """Return the factor by which weight decays are multiplied in a step.

        Args:
            lr_factor: Factor by which all learning rates are multiplied in this step.
            fraction: Fraction of the steps of the run that are completed.
        """
        if self.weight_decay_schedule == "linear":
            return fraction
        return 1 / lr_factor if self.weight_decay_schedule == "constant" and lr_factor else 1.0

    def with_learning_rate(self, learning_rate: float) -> OptimizerConfig:
        """Return a copy of the config with an absolute learning rate.

        If `matrices` is "adamw", all parameter groups get this learning rate, as in PyTorch and transformers. If
        `matrices` is "muon", the 2-D weights in the layers get this learning rate. The learning rates of the other
        groups are then scaled by the same factor.
        """
        if self.matrices == "adamw":
            return self._with(dict.fromkeys(GROUPS, learning_rate))
        return replace(self.scaled(learning_rate / self.matrix_lr), matrix_lr=learning_rate)

    def _with(self, rates: Mapping[str, float]) -> OptimizerConfig:
        named: dict[str, Any] = {f"{kind}_lr": rate for kind, rate in rates.items()}
        return replace(self, **named)


class Optimizer:
    """Combination of Muon and AdamW with one method `step` and a state dict whose keys are parameter names."""

    def __init__(
        self,
        model: nn.Module,
        config: OptimizerConfig,
        replacements: Mapping[nn.Parameter, nn.Parameter] | None = None,
        *,
        orthogonalize: Orthogonalize = newton_schulz,
        adamw: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
    ) -> None:
        """Create the optimizer for the trainable parameters of a model.

        Args:
            model: Model to train.
            config: Learning rates and hyperparameters.
            replacements: Parameter -> parameter that is updated instead of it, such as this rank's rows of a sharded
                parameter. Parameters that are not in the mapping are not updated. None means that all trainable
                parameters of the model are updated.
            orthogonalize: Function that orthogonalizes matrices for Muon.
            adamw: Class or function that creates AdamW, with the arguments of `torch.optim.AdamW`.
        """
        groups = parameter_groups(model)
        if replacements is not None:
            groups = {kind: [replacements[p] for p in found if p in replacements] for kind, found in groups.items()}
        fused = next(iter(model.parameters())).device.type in ("cpu", "cuda")
        placed = replacements or {}
        self._names: dict[Tensor, str] = {placed.get(p, p): name for name, p in model.named_parameters()}
        by_adamw = [
            {"params": groups[kind], "lr": config.rate_of(kind), "weight_decay": config.weight_decay_of(kind)}
            for kind in ("embedding", "head", "vector", *(["matrix"] if config.matrices == "adamw" else []))
            if groups[kind]
        ]
        self._config = config
        self._parts: list[torch.optim.Optimizer] = []
        if by_adamw:
            self._parts.append(adamw(by_adamw, betas=config.betas, eps=config.eps, fused=fused))
        if groups["matrix"] and config.matrices == "muon":
            self._parts.append(
                Muon(
                    groups["matrix"],
                    lr=config.matrix_lr,
                    momentum=config.momentum,
                    weight_decay=config.weight_decay,
                    orthogonalize=orthogonalize,
                )
            )
        for part in self._parts:
            for group in part.param_groups:
                group["base_lr"], group["base_weight_decay"] = group["lr"], group["weight_decay"]

    def step(self, lr_factor: float, grad_factor: Tensor | None = None, *, fraction: float = 1.0) -> None:
        """Update all parameters from their gradients, and set the gradients to None.

        Args:
            lr_factor: Factor by which all learning rates are multiplied.
            grad_factor: Factor by which all gradients are multiplied, as a scalar fp32 tensor on the same device. The
                fused AdamW multiplies gradients when it reads them, which saves a pass over all gradients.
            fraction: Fraction of the steps of the run that are completed, for the schedule of the weight decay.
        """
        decay_factor = self._config.weight_decay_factor(lr_factor, fraction)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = group["base_lr"] * lr_factor
                group["weight_decay"] = group["base_weight_decay"] * decay_factor
            if part.defaults.get("fused"):  # the fused AdamW divides gradients by `grad_scale`
                part.grad_scale = None if grad_factor is None else 1 / grad_factor  # type: ignore[attr-defined]
            elif grad_factor is not None:
                for gradient in (p.grad for group in part.param_groups for p in group["params"] if p.grad is not None):
                    gradient.mul_(grad_factor)
            part.step()
            part.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Return the state of the optimizers. The keys are `PARAMETER.KIND`, such as `lm_head.weight.exp_avg`."""
        return {
            f"{self._names[parameter]}.{key}": value
            for part in self._parts
            for parameter, state in part.state.items()
            for key, value in state.items()
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Load a state that `state` returned.

        Args:
            tensors: The state: `PARAMETER.KIND` -> tensor.

        Raises:
            FormatError: A tensor does not belong to any parameter of this model.
        """
        parameters = {name: parameter for parameter, name in self._names.items()}
        owner = {p: part for part in self._parts for group in part.param_groups for p in group["params"]}
        for full_name, value in tensors.items():
            name, _, key = full_name.rpartition(".")
            if name not in parameters:
                raise FormatError(
                    f"optimizer state {full_name!r} does not belong to any parameter of the model",
                    fix="This checkpoint belongs to another model. Start in a new --out directory.",
                )
            parameter = parameters[name]
            state: dict[str, Any] = owner[parameter].state[parameter]
            # The step count of AdamW (a scalar) stays on the CPU, except on CUDA, where the fused update reads it.
            on_device = value.ndim > 0 or parameter.device.type == "cuda"
            state[key] = value.to(parameter.device if on_device else value.device, copy=True)


def parameter_groups(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return name of the group -> trainable parameters. A tied parameter occurs only once."""
    groups: dict[str, list[nn.Parameter]] = {"matrix": [], "embedding": [], "head": [], "vector": []}
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in embeddings:
            groups["embedding"].append(parameter)
        elif parameter.ndim < 2:
            groups["vector"].append(parameter)
        elif ".layers." in name:
            groups["matrix"].append(parameter)
        else:
            groups["head"].append(parameter)
    return groups


def group_rates(model: nn.Module, config: OptimizerConfig) -> list[GroupRate]:
    """Return the learning rate of each parameter group that contains trainable parameters."""
    groups = parameter_groups(model)
    return [
        GroupRate(
            kind,
            config.matrices if kind == "matrix" else "adamw",
            config.rate_of(kind),
            sum(parameter.numel() for parameter in groups[kind]),
        )
        for kind in GROUPS
        if groups[kind]
    ]
