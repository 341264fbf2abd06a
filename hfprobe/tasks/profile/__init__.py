"""Measure throughput, latency, memory, multiply-accumulates and operators of models."""
