"""Chapter of the report. What models learn with each backend."""
