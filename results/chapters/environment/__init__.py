"""Chapter of the report. What the run was measured on."""
