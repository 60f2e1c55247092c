"""`python -m clinenv`: the command line."""

from clinenv.cli import main

raise SystemExit(main())
