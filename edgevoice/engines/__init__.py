"""One file per engine; each implements a Protocol of :mod:`edgevoice.stages`."""
