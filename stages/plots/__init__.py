"""Figures. The only folder that imports matplotlib; every function returns a Figure."""
