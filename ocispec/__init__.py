"""What an image is, down to its files: the vocabulary that every other package shares.

Owns digests, references, descriptors, manifests, configs, the Image and Layer protocols, the layer
reader, the merged tree, the root index, and the places an image can come from (layout, archive,
folder, registry). Imports the standard library, isal and a zstd library only. Starts reading at
`image.py`.
"""
