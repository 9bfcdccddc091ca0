"""What a run's records say: pure functions from records and scraped gauges to a result."""
