"""Why a run does not use its whole budget."""

from __future__ import annotations

import math

from groundup.train.planner.forecast import MIN_GAIN, Forecast, distillation_runs
from groundup.train.planner.plan import OVERHEAD_FRACTION, Budget, Plan


def limit_sentence(forecast: Forecast, plan: Plan, budget: Budget) -> str | None:
    """Return why a run does not use its whole budget, or None if it does.

    Args:
        forecast: Scaling law and training text.
        plan: Plan of the run.
        budget: Budget of the run.
    """
    if plan.num_teachers and budget.num_teachers is None:
        return (
            f"{plan.num_teachers} models with other seeds are trained first, as teachers, and the model learns from "
            "their mean probabilities, too. That helps more than longer training or a larger model."
        )
    limited = plan.epochs >= 0.95 * (plan.max_epochs or math.inf)
    allowed = float(budget.tokens or 0)
    if budget.minutes and plan.tokens_per_second:
        seconds = 60 * budget.minutes - budget.seconds_spent
        runs = distillation_runs(plan.num_teachers)
        allowed = seconds * (1 - OVERHEAD_FRACTION) * plan.tokens_per_second / runs
        limited = limited and plan.total_tokens < 0.8 * allowed
    elif budget.tokens:
        limited = plan.total_tokens < 0.8 * budget.tokens
    if not limited:
        return None
    if budget.max_epochs is not None:
        return f"The training set is small for this budget; the run is limited to {budget.max_epochs:g} epochs."
    minutes = plan.total_tokens / plan.tokens_per_second / 60 if plan.tokens_per_second else 0
    when = f"{plan.epochs:.0f} epochs" + (f" ({minutes:.1f} minutes)" if minutes else "")
    lost = forecast.bits_per_byte(plan.model, plan.total_tokens) - forecast.bits_per_byte(plan.model, allowed)
    effect = (
        f"would reduce it by less than {MIN_GAIN:g}" if lost >= 0 else f"would increase it by {-lost:.3f} (overfitting)"
    )
    return f"Training stops after {when}: the rest of the budget {effect} bits per byte. More text would help."
