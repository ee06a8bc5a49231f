"""From a corpus to shards on disk that hold its tokens, each with its importance."""
