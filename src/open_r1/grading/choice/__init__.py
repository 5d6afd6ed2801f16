"""Reading the letter of a multiple-choice answer: the parts of `grading.grader`."""
