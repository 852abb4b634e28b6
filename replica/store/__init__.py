"""One RocksDB per source: records, position and digest move together."""
