"""The full platform in Compose: the jobs its services wait for, and its secrets."""
