"""Options of a problem, what a question expects, the grader of choice, closed and open answers, and answer formats."""
