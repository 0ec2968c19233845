"""Training: the loop, its schedules, and the record that a run leaves beside its checkpoint."""
