"""What the registry knows about its content: one database, SQLAlchemy Core.

`schema.py` is the tables, `database.py` the one place that opens connections, and the other modules are the
statements, one file a subject. SQLite (WAL) now; nothing here may be written so that PostgreSQL could not run it.
"""
