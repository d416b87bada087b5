"""From data sets to batches: records, prompts, spans, tokens, batches."""
