"""The load generator: requests sent when the schedule says, and a Record of each.

A master (`crew`) tells workers the plan and gathers their records; both are Locust's runners, on gevent. A
worker sends from an asyncio loop in a thread of its own (`sending`), so that what gevent does beside it, and
gRPC's support for gevent, delays no timestamp: docs/loadtest.md has the figures. The rules are in modules
without either: `asking`, `tape`, `faults`, `offering`, `lost`.
"""
