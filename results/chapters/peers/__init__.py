"""Chapter of the report. Other libraries beside ours."""
