"""STAGE TWO: features and a manifest to cross-validated runs. Never imports stages.extract or reads pixels."""
