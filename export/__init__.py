"""From source weights to the artifacts that the runtime loads. Never imported on the hot path."""
