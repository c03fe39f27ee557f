"""Chapter of the report. How far the measurement can be trusted."""
