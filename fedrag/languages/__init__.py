"""The languages of pages: a file of sentences each, and which one a reader gets."""
