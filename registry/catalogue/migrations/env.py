"""What Alembic runs: the revisions that are missing, on the connection and in the transaction of `upgrade.py`."""

from __future__ import annotations

from alembic import context

from registry.catalogue.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
