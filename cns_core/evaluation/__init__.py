"""What was learned, in numbers and pictures."""
