"""What it takes to start the real tritonserver; nothing here runs inside it."""
