"""Chapter of the report. One sequence over several ranks."""
