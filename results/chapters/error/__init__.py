"""Chapter of the report. Errors against exact attention."""
