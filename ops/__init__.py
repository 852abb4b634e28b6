"""The operator's side: commands, metrics, reports and documents."""
