"""What lets a run be watched while it trains."""
