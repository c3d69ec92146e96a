"""What the Makefile runs and the package does not need."""
