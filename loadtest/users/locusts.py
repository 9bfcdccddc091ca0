"""Locust, without its patches: nothing here blocks gevent, and asyncio needs real threads and selectors."""

from __future__ import annotations

import os

os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"

from locust import User, constant, task
from locust.env import Environment
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner

__all__ = [
    "STATE_MISSING",
    "Environment",
    "MasterRunner",
    "User",
    "WorkerRunner",
    "constant",
    "task",
]
