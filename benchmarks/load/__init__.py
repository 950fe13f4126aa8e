"""What benchmarks put on a registry, and what they measure of it; the same for ours and for the peer."""
