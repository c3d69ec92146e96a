"""The HTTP door: health. It answers from what the loops last said and touches no store."""
