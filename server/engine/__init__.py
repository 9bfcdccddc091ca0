"""The engine that the Triton backends share: continuous batching over KV slots.

Imports go down only: loop > runner | sampler | manifest > scheduler > slots | stops | tokens > request >
errors. From the scheduler down there is only the standard library: no numpy, no clock, no thread.
"""
