"""The data store: engine, locks, table definitions, bulk loading and reading. MySQL, or a SQLite file."""
