"""Measures a bundle on this device, stage by stage and as a conversation, and compares runs."""
