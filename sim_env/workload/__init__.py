"""What arrives: jobs, rates, deadlines, schedules."""
