"""Evaluation tasks that are declared in files: what to ask, and how to score the answers."""

from groundup.evaluation.tasks.declaration import EvaluationTask, read_task, tasks_identity
from groundup.evaluation.tasks.result import COLUMNS, TOO_LONG, TaskReport, TaskResult, on_shared_items
from groundup.evaluation.tasks.scoring import TaskModel, score_tasks

__all__ = [
    "COLUMNS",
    "TOO_LONG",
    "EvaluationTask",
    "TaskModel",
    "TaskReport",
    "TaskResult",
    "on_shared_items",
    "read_task",
    "score_tasks",
    "tasks_identity",
]
