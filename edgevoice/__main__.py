"""`python -m edgevoice`: the same as the `edgevoice` command."""

from edgevoice.cli import main

raise SystemExit(main())
