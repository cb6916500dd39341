"""What is claimed about speed and endurance, measured. Each prints a table and, last, one line `RESULT {json}`."""
