"""Audio ports: where sound comes from and goes to."""
