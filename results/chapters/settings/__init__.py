"""Chapter of the report. One setting against another."""
