"""Code generated from `proto/orqestra/v1` by `make proto`; a test says that it is current."""
