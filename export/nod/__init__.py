"""Fits what judges from a recogniser's own hearing whether speech over the agent is a nod."""
