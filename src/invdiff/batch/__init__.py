"""Many images with one command: items, their shards, the manifest, and who works on them."""
