"""Three real servers behind nginx or Envoy under load: a rolling restart, and one that is killed."""
