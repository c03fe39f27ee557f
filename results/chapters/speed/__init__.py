"""Chapter of the report. Time and memory against length."""
