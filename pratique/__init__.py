"""The `pratique` command: one file a verb under `commands/`, nothing imported before it is called.

Imports every other package; nobody imports it. Starts reading at `__main__.py`.
"""
