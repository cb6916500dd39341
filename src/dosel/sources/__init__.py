"""The sources of rows. `dosel.sources.opened` opens the declared source with an installation's settings."""
