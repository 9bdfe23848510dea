"""Sentences that describe the forecast of a plan, for the console."""

from __future__ import annotations

from groundup.train.planner.forecast import MIN_GAIN, Forecast
from groundup.train.planner.plan import OVERHEAD_FRACTION, Budget, Plan


def sentences(forecast: Forecast, plan: Plan, budget: Budget, *, predicts: bool) -> list[str]:
    """Return sentences with the predicted bits per byte, and why a run does not use its whole budget.

    Args:
        forecast: Scaling law and training text.
        plan: Plan of the run.
        budget: Budget of the run.
        predicts: Whether the law applies, i.e. whether training starts from random weights.
    """
    found = [_prediction(forecast, plan)] if predicts else []
    return [*found, *_limit(forecast, plan, budget)]


def _prediction(forecast: Forecast, plan: Plan) -> str:
    found = forecast.interval(plan.model, plan.total_tokens)
    return (
        f"Predicted: {found.value:.2f} bits per byte of held-out text (90 % interval {found.low:.2f} to "
        f"{found.high:.2f})."
    )


def _limit(forecast: Forecast, plan: Plan, budget: Budget) -> list[str]:
    if plan.tokens_per_second and budget.minutes:
        seconds = 60 * budget.minutes - budget.seconds_spent
        allowed = seconds * (1 - OVERHEAD_FRACTION) * plan.tokens_per_second
    else:
        allowed = float(budget.tokens or 0)
    if plan.total_tokens > 0.8 * allowed:
        return []
    if budget.max_epochs is not None:
        return [f"The training set is small for this budget; the run is limited to {budget.max_epochs:g} epochs."]
    minutes = plan.total_tokens / plan.tokens_per_second / 60 if plan.tokens_per_second else 0
    when = f"{plan.epochs:.0f} epochs" + (f" ({minutes:.1f} minutes)" if minutes else "")
    lost = forecast.bits_per_byte(plan.model, plan.total_tokens) - forecast.bits_per_byte(plan.model, allowed)
    effect = (
        f"would reduce it by less than {MIN_GAIN:g}" if lost >= 0 else f"would increase it by {-lost:.3f} (overfitting)"
    )
    return [f"Training stops after {when}: the rest of the budget {effect} bits per byte. More text would help."]
