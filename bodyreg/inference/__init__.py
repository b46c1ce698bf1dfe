"""From photographs to posed bodies: people, the folder job, result files and exports."""
