"""The clients that people have, against a live registry: each pushes, pulls, copies and lists, both ways."""
