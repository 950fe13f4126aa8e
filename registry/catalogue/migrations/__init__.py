"""How the catalogue's tables came to be, one file a change (Alembic); README.md says how to add one."""
