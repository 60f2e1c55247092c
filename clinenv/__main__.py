"""`python -m clinenv`: the command line."""

from clinenv.commands.main import main

raise SystemExit(main())
