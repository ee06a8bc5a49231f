"""From a corpus to tokens with an importance each, in shards on disk."""
