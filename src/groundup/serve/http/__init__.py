"""HTTP: the server, its middleware and its limits."""
