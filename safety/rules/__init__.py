"""Rules that find personal data, secrets, toxicity and listed words, in corpora and in streams."""
