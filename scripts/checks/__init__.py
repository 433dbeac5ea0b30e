"""What scripts/check-files asks of each kind of file. It runs in the Python of .venv."""
