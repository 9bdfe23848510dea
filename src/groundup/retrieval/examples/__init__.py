"""Training examples for a reader: questions and answers that are written from the user's own documents."""
