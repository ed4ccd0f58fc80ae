"""What is measured: comparisons, studies, recommenders under attack."""
