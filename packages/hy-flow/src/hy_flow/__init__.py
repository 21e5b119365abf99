"""Flow matching: schedules, samplers, guidance and the training objective."""
