"""Chapter of the report. Weights in fewer bits."""
