"""What the daemon speaks on the wire."""
