"""The documentation site: `python -m docs.site.build` (or `make site`) writes it to build/site/html, offline."""
