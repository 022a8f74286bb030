"""Generated messages and stubs of lancet.v1 (clients/generate.sh writes them)."""
