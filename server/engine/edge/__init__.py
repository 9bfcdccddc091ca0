"""What touches the outside: Triton, files, sockets, metrics, traces."""
