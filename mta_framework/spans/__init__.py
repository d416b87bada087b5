"""Spans of texts: found by extractors, kept on disk, and mapped to the tokens of one or two tokenizers."""
