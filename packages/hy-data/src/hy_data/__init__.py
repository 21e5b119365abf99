"""Video files in, training shards out: reading, shots, buckets, shards and the procedural world."""
