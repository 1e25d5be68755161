"""STAGE TWO: features + manifest -> runs. Never imports stages.extract, never touches pixels."""
