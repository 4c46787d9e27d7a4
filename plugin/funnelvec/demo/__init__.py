"""The demonstration: real text, an embedded Postgres, a funnel and a calibrated relevance."""
