"""The load generator: requests sent when the schedule says, and a Record of each.

A master (`master`) sends workers (`worker`) the plan and collects their records. A worker keeps the schedule,
sends and takes the times in one asyncio loop. `offering`, `tally` and most of `request` are pure.
"""
