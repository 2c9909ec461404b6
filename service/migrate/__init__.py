"""Brings what is in Redis to what `migrations/`, `index_schemas/` and the settings ask for.

`migrations/` holds numbered, idempotent steps of the layout (steps.py); from one generation to the next leads
what the schema and the settings say (changes.py, moving.py). One migrator works at a time, under a lease.
"""

from service.migrate.steps import Step, StepState, pending, status, steps
from service.migrate.target import BusyError, MigrationError, Model, Options, Target
from service.migrate.telling import planned, told
from service.migrate.up import Plan, plan, rollback, up, up_if_empty

__all__ = [
    "BusyError",
    "MigrationError",
    "Model",
    "Options",
    "Plan",
    "Step",
    "StepState",
    "Target",
    "pending",
    "plan",
    "planned",
    "rollback",
    "status",
    "steps",
    "told",
    "up",
    "up_if_empty",
]
