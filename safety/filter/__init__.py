"""A filter for corpora: rules, languages, lengths, repetition, duplicates, overlap with evaluation texts."""
