"""Chapter of the report. Every case."""
