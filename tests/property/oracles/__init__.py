"""Slow, obvious Python twins of the pure Rust modules. Nothing outside tests and benchmarks uses them."""
