"""STAGE ONE: manifest + encoder weights -> feature cache. Never imports stages.heads."""
