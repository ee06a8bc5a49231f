"""A web page for writing with a cascade: give keywords, watch every stage, edit it, and continue from it."""
