"""The people a model can recognize: contract, SQLite and PostgreSQL, index, erasure."""
