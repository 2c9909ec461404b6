"""Makes the verifier that the service ships: `python -m bench.verifier.data`, `.train`, `.export`."""
