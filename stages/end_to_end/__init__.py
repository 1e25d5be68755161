"""Encoder and head trained jointly from cached crops, for comparison with the two stages. Never imports stages.extract."""
