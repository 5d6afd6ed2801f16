"""The grader: which options a problem offers, which letter a completion gives, and whether it is right."""
