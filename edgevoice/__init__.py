"""edgevoice: a real, interruptible voice assistant for small devices, offline."""

__version__ = "0.1.0"
