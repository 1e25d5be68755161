"""Obtain ResNet-18 weights as one safetensors file that knows its normalisation."""
