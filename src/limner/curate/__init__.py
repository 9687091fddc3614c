"""From images to multiple-choice questions: generate, parse, filter, report. See docs/questions.md."""
