"""Streaming recognisers of one's own, distilled from a Whisper encoder."""
