"""How each stage's artifacts are measured against their float reference."""
