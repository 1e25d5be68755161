"""How do results look? The only folder that knows matplotlib; every function here returns a Figure."""
