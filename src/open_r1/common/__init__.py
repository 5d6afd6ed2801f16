"""What every part uses: errors, files, locks, logs. Imports nothing else of this package."""
