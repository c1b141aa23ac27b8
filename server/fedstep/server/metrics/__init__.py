"""What a coordinator tells Prometheus."""
