"""How good an estimate is: the measures that the demo, `evaluate` and the benchmarks share."""
