"""What runs inside the sandbox. Imports nothing of ours outside this folder; the rest of the project is not there."""
