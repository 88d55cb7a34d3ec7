"""Judges of endings, fitted to what a recogniser's encoder makes of whole and of cut speech."""
