"""The layers that Whisper's encoder and decoder are both made of."""

from __future__ import annotations

from edgevoice.export.families.whisper_weights import Weights
from edgevoice.export.onnx_graph import Graph

LAYER_NORM_EPSILON = 1e-5  # torch.nn.LayerNorm's default, which Whisper was trained with


class Layers:
    """Adds layers with the weights of one source to one graph."""

    def __init__(self, graph: Graph, weights: Weights) -> None:
        self.graph = graph
        self.weights = weights

    def linear(self, x: str, name: str) -> str:
        """``x`` times the transpose of weight [out, in], plus the bias."""
        weight = self.graph.weight(f"{name}/weight", self.weights.floats(f"{name}/weight").T)
        bias = self.graph.weight(f"{name}/bias", self.weights.floats(f"{name}/bias"))
        return self.graph.op("Add", self.graph.op("MatMul", x, weight), bias)

    def norm(self, x: str, name: str) -> str:
        """Layer normalisation over the channels."""
        gamma = self.graph.weight(f"{name}/gamma", self.weights.floats(f"{name}/gamma"))
        beta = self.graph.weight(f"{name}/beta", self.weights.floats(f"{name}/beta"))
        return self.graph.op(
            "LayerNormalization", x, gamma, beta, axis=-1, epsilon=LAYER_NORM_EPSILON
        )

    def feed_forward(self, x: str, name: str) -> str:
        """Add ``x`` and its two products with a GELU between them."""
        hidden = self.linear(self.norm(x, f"{name}/layer_norm"), f"{name}/linear_0")
        hidden = self.graph.op("Gelu", hidden)
        return self.graph.op("Add", x, self.linear(hidden, f"{name}/linear_1"))

    def convolution(self, x: str, name: str, stride: int) -> str:
        """Convolve ``x`` [1, channels, T] with three taps, then GELU."""
        weight = self.graph.weight(f"{name}/weight", self.weights.floats(f"{name}/weight"))
        bias = self.graph.weight(f"{name}/bias", self.weights.floats(f"{name}/bias"))
        return self.graph.op(
            "Gelu", self.graph.op("Conv", x, weight, bias, pads=[1, 1], strides=[stride])
        )
