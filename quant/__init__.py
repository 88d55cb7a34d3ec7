"""Quantisation of ONNX graphs."""
