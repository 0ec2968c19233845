"""Around the equation of step 3: its files, its errors and warnings, its results and figure."""
