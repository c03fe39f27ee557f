"""Chapter of the report. The claims: what was measured of each, and the verdict."""
