"""Encoder files: the weights of ResNet-18 from synthetic faces, photographs, ImageNet or a checkpoint, as safetensors."""
